#include "train/run_start.h"

#include <array>

#include "checkpoints/checkpoint.h"
#include "checkpoints/folders.h"
#include "kernels/check.h"
#include "train/load_model.h"
#include "train/run_state.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;
using Note = std::function<void(const std::string&)>;

void check_options(const StartOptions& options) {
  const bool named = options.resume != "auto" && options.resume != "none";
  if (options.resume.empty()) fail("--resume is empty: say auto, none or the path of a checkpoint");
  if (!options.init_from.empty() && named)
    fail("--init-from begins a new run, --resume ", options.resume, " goes on with one: name one");
  if (options.init_moments && options.init_from.empty())
    fail("--init-moments needs --init-from: it says what to begin with beside the parameters");
  if (options.skip_steps < 0) fail("--skip-steps ", options.skip_steps, ": must be 0 or more");
  if (options.skip_steps > 0 && !named) {
    fail("--skip-steps needs --resume PATH, the checkpoint before the data to leave out: under ",
         "--resume ", options.resume, " each restart would leave out more");
  }
}

// The sound checkpoint that `path` stands for.
fs::path sound_checkpoint(const fs::path& path, const Note& note) {
  std::vector<std::string> problems;
  const fs::path found = find_checkpoint(path, &problems);
  for (const std::string& problem : problems) note("damaged checkpoint passed over: " + problem);
  if (found == path) CheckpointReader(found).verify();  // else it was picked because it is sound
  return found;
}

// Whether the run of `checkpoint` already left out the data of `steps` steps at `step`.
bool left_out_before(const fs::path& checkpoint, int64_t step, int64_t steps) {
  for (const LeftOut& part : run_state(CheckpointReader(checkpoint)).left_out)
    if (part.step == step && part.steps == steps) return true;
  return false;
}

RunStart resume_newest(const fs::path& output, const StartOptions& options, const Note& note) {
  const fs::path checkpoint = sound_checkpoint(output, note);
  if (!options.init_from.empty() && run_state(CheckpointReader(checkpoint)).init_from.empty()) {
    fail("--init-from: run.output = \"", output.native(),
         "\" already holds checkpoints of a run that did not begin so; choose another run.output");
  }
  return {RunStart::From::resume, checkpoint};
}

RunStart resume_named(const fs::path& output, const std::optional<int64_t>& newest,
                      const StartOptions& options, const Note& note) {
  const fs::path checkpoint = sound_checkpoint(options.resume, note);
  const int64_t step = CheckpointReader(checkpoint).state().step;
  if (!newest || *newest <= step) return {RunStart::From::resume, checkpoint, options.skip_steps};

  // With later checkpoints in run.output the next automatic resume would go on from those.
  if (options.skip_steps > 0) {
    const fs::path later = sound_checkpoint(output, note);
    if (left_out_before(later, step, options.skip_steps)) {
      note(concat("the data of ", options.skip_steps, " steps was left out at step ", step,
                  " already: resuming the newest checkpoint"));
      return {RunStart::From::resume, later};
    }
  }
  fail("--resume ", options.resume, " is at step ", step, ", but run.output = \"", output.native(),
       "\" already holds step ", *newest,
       "; choose another run.output, or remove the later checkpoints");
}

}  // namespace

RunStart find_start(const Config& config, const StartOptions& options, const Note& note) {
  check_options(options);
  const fs::path output = config.run.output;
  const std::vector<fs::path> present = list_checkpoints(output);
  const bool fresh = options.resume == "none" || (options.resume == "auto" && present.empty());
  if (options.resume == "none" && !present.empty()) {
    fail("--resume none: ", output.native(), " already holds ", present.size(),
         " checkpoints; choose another run.output, remove them, or resume");
  }
  if (fresh && options.init_from.empty()) return {};
  if (fresh) return {RunStart::From::init, sound_checkpoint(options.init_from, note)};
  if (options.resume == "auto") return resume_newest(output, options, note);

  std::optional<int64_t> newest;
  if (!present.empty()) {
    if (const auto name = parse_step_folder(present.back().filename().string()))
      newest = name->step;
  }
  return resume_named(output, newest, options, note);
}

RunStart agree_on_start(const Config& config, const StartOptions& options,
                        Communicator& communicator, std::unique_ptr<RunLock>& lock,
                        const Note& note) {
  RunStart start;
  together(communicator, [&] {
    if (communicator.rank() != 0) return;
    std::error_code ignored;
    if (fs::is_directory(config.run.output, ignored))
      lock = std::make_unique<RunLock>(config.run.output);
    start = find_start(config, options, note);
  });
  std::array<int64_t, 2> numbers{static_cast<int64_t>(start.from), start.skip_steps};
  communicator.broadcast(std::as_writable_bytes(std::span(numbers)), 0);
  return {static_cast<RunStart::From>(numbers[0]),
          broadcast_text(communicator, start.checkpoint.string(), 0), numbers[1]};
}

}  // namespace rodimus
