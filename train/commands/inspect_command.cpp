// `rodimus inspect`: the command line of train/report/inspect.h.
#include <fmt/format.h>

#include <memory>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "train/commands/commands.h"
#include "train/commands/mpi_session.h"
#include "train/commands/option_checks.h"
#include "train/report/inspect.h"

namespace rodimus {
namespace {

void run(const std::string& path, bool json) {
  Inspection inspection = inspect(path);
  const auto& problems = inspection.problems;
  if (json) {
    inspection.facts["sound"] = problems.empty();
    inspection.facts["problems"] = problems;
    fmt::print("{}\n", to_text(inspection.facts, 2));
  } else {
    fmt::print("{}", describe(inspection));
  }
  if (!problems.empty()) {
    fail(path, " is damaged: ", problems.front(),
         problems.size() > 1 ? concat(" (and ", problems.size() - 1, " more)") : "");
  }
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  Command command(app, "inspect",
                  "Show and verify a checkpoint, a run, shards, a tokenizer or a configuration");
  command.option("path", *path, "what to look at").required().check(not_empty());
  command.flag("--json", *json, "print JSON");
  command.example(
      "  rodimus inspect runs/demo           all checkpoints, the newest in full\n"
      "  rodimus inspect configs/125m.toml   parameters, memory, FLOPs\n"
      "Checksums are verified. Exit code 1 when anything is damaged.");
  command.run([path, json] {
    require_single_process("inspect");
    run(*path, *json);
  });
}

}  // namespace rodimus
