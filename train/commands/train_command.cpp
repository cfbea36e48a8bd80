// rodimus train: `mpirun -n N rodimus train CONFIG.toml`.
#include <fmt/core.h>

#include "dist/communicator.h"
#include "train/commands/commands.h"
#include "train/commands/mpi_session.h"
#include "train/commands/option_checks.h"
#include "train/trainer.h"

namespace rodimus {
namespace {

struct Arguments {
  std::string config;
  std::vector<std::string> set;
  StartOptions start;
  bool keys = false;
};

}  // namespace

void add_train_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  Command command(app, "train", "Train a model; start it with mpirun to use several ranks");
  add_config_options(command, arguments->config, arguments->set);
  command
      .option("--resume", arguments->start.resume,
              "auto: newest intact checkpoint of run.output; none: fresh start; PATH: a "
              "checkpoint or a run")
      .check(not_empty())
      .show_default();
  command
      .option("--init-from", arguments->start.init_from,
              "Begin a new run (step 0, first sample, own schedule) with the parameters of "
              "this checkpoint or run: annealing, continued pretraining, fine-tuning")
      .check(not_empty());
  command.flag("--init-moments", arguments->start.init_moments,
               "With --init-from: AdamW's moments as well");
  command
      .option("--skip-steps", arguments->start.skip_steps,
              "With --resume PATH: skip the data of the next N steps, as after a loss "
              "spike")
      .check(integer_in(0, kMaxSize));
  command.flag("--allow-other-data", arguments->start.other_data,
               "Resume although data.train has changed");
  command.flag("--allow-other-compute", arguments->start.other_compute,
               "Resume with another run.compute than the run has used");
  command.flag("--keys", arguments->keys,
               "Print every configuration key with its default and meaning, and exit");
  command.example(
      "  mpirun -n 2 rodimus train configs/small.toml --set run.output=runs/first --set "
      "data.train=my_data/train\n"
      "SIGTERM, SIGINT or SIGUSR1 save a checkpoint and leave with exit code 0; rerun the command "
      "to resume.");
  command.run([arguments] {
    if (arguments->keys) {
      fmt::print("{}", config_reference());
      return;
    }
    if (arguments->config.empty())
      fail("train: name a configuration, as in: rodimus train configs/small.toml");
    with_communicator([&](Communicator& communicator) {
      Config config;
      together(communicator, [&] { config = load_config(arguments->config, arguments->set); });
      train(config, arguments->start, communicator);
    });
  });
}

}  // namespace rodimus
