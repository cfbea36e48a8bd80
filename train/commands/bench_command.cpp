// `rodimus bench`: the command line of train/report/bench.h.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "train/commands/commands.h"
#include "train/commands/mpi_session.h"
#include "train/commands/option_checks.h"
#include "train/report/bench.h"

namespace rodimus {
namespace {

struct Arguments {
  std::string config;
  std::vector<std::string> set;
  BenchOptions bench;
  int64_t steps = 0;  // 0: the default of what is measured
  int threads = 0;
  bool json = false;
};

void run(const Arguments& arguments, Communicator& communicator) {
  Config config;
  BenchOptions options = arguments.bench;
  options.steps = arguments.steps > 0 ? arguments.steps : options.decode ? 50 : 5;
  together(communicator, [&] {
    config = load_config(arguments.config, arguments.set);
    if (arguments.threads > 0) config.run.threads = arguments.threads;
    if (options.decode && communicator.world_size() > 1)
      fail("bench --decode: one sequence is not shared among ranks; start it without mpirun");
  });
  const Bench result = bench(config, options, communicator);
  if (communicator.rank() != 0) return;
  if (!arguments.json) return fmt::print("{}", describe(result));
  nlohmann::ordered_json json = to_json(result);
  json["config"] = arguments.config;
  fmt::print("{}\n", to_text(json, 2));
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  Command command(app, "bench",
                  "Time the machine and a training step, or generation, op by op; needs no data");
  add_config_options(command, arguments->config, arguments->set).required();
  command
      .option("--steps", arguments->steps,
              "Steps to time, of which the median is shown (default: 5; 50 tokens with "
              "--decode)")
      .check(integer_in(1, 1000000));
  command.option("--warmup", arguments->bench.warmup, "Steps before the first timed one")
      .check(integer_in(0, 1000000))
      .show_default();
  command.flag("--decode", arguments->bench.decode,
               "Generation of single tokens at positions 1k and 64k instead of training");
  command.option("--threads", arguments->threads, "Threads per rank; 0: run.threads")
      .check(integer_in(0, 4096))
      .show_default();
  command.flag("--json", arguments->json, "Print one JSON object");
  command.example(
      "  rodimus bench configs/small.toml --set run.compute=f32\n"
      "  mpirun -n 2 rodimus bench configs/small.toml --json\n"
      "  rodimus bench configs/base.toml --decode\n"
      "Tokens are random. MFU is the FLOPs of the matrix products that the model needs, by the "
      "best "
      "rate of a large matrix product on this machine.");
  command.run([arguments] {
    with_communicator([&](Communicator& communicator) { run(*arguments, communicator); });
  });
}

}  // namespace rodimus
