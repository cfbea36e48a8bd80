// `rodimus plan`: the command line of train/report/plan.h.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "train/commands/commands.h"
#include "train/commands/mpi_session.h"
#include "train/commands/option_checks.h"
#include "train/report/plan.h"

namespace rodimus {
namespace {

struct Arguments {
  std::string config;
  std::vector<std::string> set;
  PlanOptions plan;
  bool json = false;
};

}  // namespace

void add_plan_command(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  Command command(app, "plan",
                  "Model a run on GPUs: memory, least step time and what bounds it; needs no GPU");
  add_config_options(command, arguments->config, arguments->set).required();
  command.option("--gpus", arguments->plan.gpus, "How many, one rank each")
      .check(integer_in(1, 1000000))
      .show_default();
  std::vector<std::string> names;
  for (const GpuSheet& sheet : gpu_sheets()) names.push_back(sheet.name);
  command.option("--gpu", arguments->plan.gpu, "Which").check(one_of(names)).show_default();
  command
      .option("--network", arguments->plan.network_gbit_per_s,
              "Gbit/s of one NIC to other nodes, each way; a node has a NIC for every GPU")
      .check(number_in({.low = 0, .above = true}))
      .show_default();
  command.flag("--json", arguments->json, "Print one JSON object");
  command.example(
      "  rodimus plan configs/1.4b.toml --gpus 64 --gpu h100\n"
      "  rodimus plan configs/1.4b.toml --gpus 8 --set run.micro_batch=2 --set "
      "run.recompute=false\n"
      "Bounds come from data sheets and from the least FLOPs and bytes; nothing is measured.");
  command.run([arguments] {
    require_single_process("plan");
    const Plan result = plan(load_config(arguments->config, arguments->set), arguments->plan);
    fmt::print("{}", arguments->json ? to_text(to_json(result), 2) + "\n" : describe(result));
  });
}

}  // namespace rodimus
