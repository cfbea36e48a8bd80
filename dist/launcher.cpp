// Reads what a launcher put into the environment of its processes.
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "dist/communicator.h"

namespace rodimus {
namespace {

// A count or a rank; unset and empty mean the same. Anything else that is not a number did not come
// from a launcher, and guessing could let ranks train alone and write the same files.
std::optional<int> number_from_environment(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr || *value == '\0') return {};
  const std::string_view text(value);
  int number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || rest != text.data() + text.size() || number < 0) {
    fail("the environment variable ", name, " is \"", text.substr(0, 60),
         "\", expected an integer in [0, 2^31 - 1]; launchers set it, do not set it by hand");
  }
  return number;
}

}  // namespace

// Not SLURM_NTASKS: sbatch sets it for the batch script too, where no launcher has run yet.
int64_t ranks_by_launcher() {
  int ranks = 0;
  for (const char* name :
       {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    ranks = std::max(ranks, number_from_environment(name).value_or(0));
  }
  return ranks;
}

int launcher_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const auto rank = number_from_environment(name)) return *rank;
  }
  return 0;
}

bool launched_by_mpi() {
  return ranks_by_launcher() > 0 || number_from_environment("PMIX_RANK") ||
         number_from_environment("PMI_RANK");
}

}  // namespace rodimus
