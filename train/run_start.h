// Where a run starts: from scratch, from the parameters of another run, from its own newest intact
// checkpoint, or from a named one.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "dist/communicator.h"
#include "train/run_lock.h"

namespace rodimus {

// The command-line options about the start.
struct StartOptions {
  // "auto": the newest intact checkpoint of run.output, else a fresh start; "none": a fresh start,
  // which is an error if run.output holds checkpoints, because nothing is overwritten silently; or
  // the path of a checkpoint or run, in which case run.output must not hold later checkpoints.
  std::string resume = "auto";
  // A checkpoint or run whose parameters a fresh run starts with, at step 0 and sample 0 and with
  // its own schedule. Once run.output holds checkpoints of a run started this way, those are
  // resumed.
  std::string init_from;
  bool init_moments = false;   // take the moments of AdamW as well
  bool other_data = false;     // continue although data.train has changed
  bool other_compute = false;  // continue in another type than before
  // With the path of a step folder to resume: skips the data of this many steps, once.
  int64_t skip_steps = 0;
};

struct RunStart {
  enum class From : uint8_t { nothing, init, resume };
  From from = From::nothing;
  std::filesystem::path checkpoint;  // has passed verify(); empty: From::nothing
  int64_t skip_steps = 0;            // to skip now; 0 if an earlier start did
};

// Decides from `output` (run.output) and `options`. `note` receives a line per damaged checkpoint
// that was skipped. Rerunning the command of an interrupted run resumes it, also with
// --init-from or --skip-steps, which act once. Throws Error for conflicting options, when
// checkpoints exist but none is intact, and in the cases given at StartOptions.
RunStart find_start(const std::filesystem::path& output, const StartOptions& options,
                    const std::function<void(const std::string&)>& note);

// How a checkpoint records --init-from: as an absolute path.
std::string named_for_init(const std::string& path);

// The same for all ranks: rank 0 decides and all ranks learn the result. If the run folder exists,
// rank 0 holds `lock` from here on. Collective.
RunStart agree_on_start(const std::filesystem::path& output, const StartOptions& options,
                        Communicator& communicator, std::unique_ptr<RunLock>& lock,
                        const std::function<void(const std::string&)>& note);

}  // namespace rodimus
