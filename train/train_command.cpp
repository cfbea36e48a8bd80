// rodimus train: `mpirun -n N rodimus train CONFIG.toml`.
#include <fmt/core.h>

#include "dist/communicator.h"
#include "train/commands.h"
#include "train/mpi_session.h"
#include "train/option_checks.h"
#include "train/trainer.h"

namespace rodimus {
namespace {

struct Arguments {
  std::string config;
  std::vector<std::string> set;
  std::string resume = "auto";
  bool other_data = false;
  bool keys = false;
};

}  // namespace

void add_train_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("train", "Train a model; start it with mpirun to use several ranks");
  command->add_option("config", arguments->config, "TOML file, see configs/ and docs/config.md")
      ->check(not_empty());
  command
      ->add_option("--set", arguments->set, "Override one key: section.key=value (may be repeated)")
      ->allow_extra_args(false)
      ->check(not_empty());
  command
      ->add_option("--resume", arguments->resume,
                   "auto: newest sound checkpoint of run.output; none: fresh start; PATH: a "
                   "checkpoint or a run")
      ->check(not_empty())
      ->capture_default_str();
  command->add_flag("--allow-other-data", arguments->other_data,
                    "Go on from a checkpoint although data.train has changed");
  command->add_flag("--keys", arguments->keys,
                    "Print every configuration key with its default and meaning, and leave");
  command->footer(
      "Example:\n  mpirun -n 2 rodimus train configs/small.toml --set run.output=runs/first --set "
      "data.train=my_data/train\n"
      "SIGTERM, SIGINT or SIGUSR1 save a checkpoint and leave with exit code 0; the same command "
      "goes on from there.");
  command->callback([arguments] {
    if (arguments->keys) {
      fmt::print("{}", config_reference());
      return;
    }
    if (arguments->config.empty())
      fail("train: name a configuration, as in: rodimus train configs/small.toml");
    with_communicator([&](Communicator& communicator) {
      Config config;
      together(communicator, [&] { config = load_config(arguments->config, arguments->set); });
      train(std::move(config), {arguments->resume, arguments->other_data}, communicator);
    });
  });
}

}  // namespace rodimus
