// Where a run starts: nothing, the parameters of another run, its own newest sound checkpoint, or a
// named one.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "dist/communicator.h"
#include "train/run_lock.h"

namespace rodimus {

// What the command line says of the start.
struct StartOptions {
  // "auto": the newest sound checkpoint of run.output, else a fresh start; "none": a fresh start,
  // an error when run.output holds checkpoints, since nothing is overwritten unasked; or the path
  // of a checkpoint or of a run, where run.output must not hold later checkpoints.
  std::string resume = "auto";
  // A checkpoint or run whose parameters a fresh run begins with: step 0, sample 0, its own
  // schedule. Once run.output holds checkpoints of a run that began so, those are resumed.
  std::string init_from;
  bool init_moments = false;   // the moments of AdamW as well
  bool other_data = false;     // go on although data.train has changed
  bool other_compute = false;  // go on in another type than before
  // With the path of a step folder to resume: the data of so many steps is left out, once.
  int64_t skip_steps = 0;
};

struct RunStart {
  enum class From : uint8_t { nothing, init, resume };
  From from = From::nothing;
  std::filesystem::path checkpoint;  // has passed verify(); empty: From::nothing
  int64_t skip_steps = 0;            // to leave out now, not by an earlier start
};

// Looks into `output` (run.output) and at what `options` name. `note` receives a line per damaged
// checkpoint that was passed over. Repeating the command of an interrupted run resumes it, also
// with
// --init-from or --skip-steps, which act once. Throws Error for options that exclude each other,
// when checkpoints exist and none is sound, and as said at StartOptions.
RunStart find_start(const std::filesystem::path& output, const StartOptions& options,
                    const std::function<void(const std::string&)>& note);

// How a checkpoint records --init-from: as an absolute path.
std::string named_for_init(const std::string& path);

// The same for all ranks: rank 0 looks and all learn what it found. Where the run folder exists,
// rank 0 holds `lock` from here on. Collective.
RunStart agree_on_start(const std::filesystem::path& output, const StartOptions& options,
                        Communicator& communicator, std::unique_ptr<RunLock>& lock,
                        const std::function<void(const std::string&)>& note);

}  // namespace rodimus
