#include "train/run_start.h"

#include <array>
#include <optional>

#include "base/error.h"
#include "base/paths.h"
#include "checkpoints/checkpoint.h"
#include "checkpoints/folders.h"
#include "train/inference/load_model.h"
#include "train/run_state.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;
using Note = std::function<void(const std::string&)>;

// The step in the name of a step folder; nullopt for other paths.
std::optional<int64_t> step_of(const fs::path& path) {
  const fs::path folder = path.has_filename() ? path : path.parent_path();
  const auto name = parse_step_folder(folder.filename().string());
  return name ? std::optional(name->step) : std::nullopt;
}

void check_options(const StartOptions& options) {
  const bool named = options.resume != "auto" && options.resume != "none";
  if (options.resume.empty())
    fail("--resume is empty: expected auto, none or the path of a checkpoint");
  if (!options.init_from.empty() && named)
    fail("--init-from starts a new run, --resume ", options.resume,
         " continues one: give only one");
  if (options.init_moments && options.init_from.empty())
    fail("--init-moments needs --init-from: it takes the moments from the same checkpoint");
  if (options.skip_steps < 0) fail("--skip-steps ", options.skip_steps, ": must be 0 or more");
  if (options.skip_steps > 0 && !step_of(options.resume)) {
    fail("--skip-steps needs --resume PATH, the folder step_... before the data to skip: ",
         "with --resume ", options.resume, " each restart would skip more");
  }
}

// The intact checkpoint at `path`.
fs::path sound_checkpoint(const fs::path& path, const Note& note) {
  std::vector<std::string> problems;
  const fs::path found = find_checkpoint(path, &problems);
  for (const std::string& problem : problems) note("skipping a damaged checkpoint: " + problem);
  if (found == path) CheckpointReader(found).verify();  // else it was chosen because it is intact
  return found;
}

RunStart resume_newest(const fs::path& output, const StartOptions& options, const Note& note) {
  const fs::path checkpoint = sound_checkpoint(output, note);
  if (options.init_from.empty()) return {RunStart::From::resume, checkpoint};
  const RunState state = run_state(CheckpointReader(checkpoint));
  const std::string wanted = named_for_init(options.init_from);
  if (state.init_from == wanted && state.init_moments == options.init_moments)
    return {RunStart::From::resume, checkpoint};
  fail("--init-from ", wanted, options.init_moments ? " with" : " without",
       " moments: run.output = \"", output.native(),
       "\" holds checkpoints of a run that began with ",
       state.init_from.empty()
           ? "parameters of its own"
           : concat(state.init_from, state.init_moments ? " and its" : ", without", " moments"),
       "; choose another run.output, or omit --init-from to resume that run");
}

// The newest intact checkpoint in `output` whose run skipped the data of `steps` steps at `step`.
std::optional<fs::path> left_out_before(const fs::path& output, int64_t step, int64_t steps) {
  const auto newest = newest_sound_checkpoint(output, nullptr);
  if (!newest) return {};
  for (const LeftOut& part : run_state(CheckpointReader(*newest)).left_out)
    if (part.step == step && part.steps == steps) return newest;
  return {};
}

RunStart resume_named(const fs::path& output, const std::vector<fs::path>& present,
                      const StartOptions& options, const Note& note) {
  // Checked first, because the named checkpoint may have been pruned or saved again since.
  if (options.skip_steps > 0 && !present.empty()) {
    if (const auto newest = left_out_before(output, *step_of(options.resume), options.skip_steps)) {
      note(concat("the data of ", options.skip_steps, " steps has already been skipped: resuming ",
                  newest->native()));
      return {RunStart::From::resume, *newest};
    }
  }
  const fs::path checkpoint = sound_checkpoint(options.resume, note);
  const int64_t step = CheckpointReader(checkpoint).state().step;
  const auto newest = present.empty() ? std::nullopt : step_of(present.back());
  // If run.output held later checkpoints, the next automatic resume would continue from those.
  if (newest && *newest > step) {
    fail("--resume ", options.resume, " is at step ", step, ", but run.output = \"",
         output.native(), "\" already holds step ", *newest,
         "; choose another run.output, or remove the later checkpoints");
  }
  return {RunStart::From::resume, checkpoint, options.skip_steps};
}

}  // namespace

RunStart find_start(const fs::path& output, const StartOptions& options, const Note& note) {
  check_options(options);
  const std::vector<fs::path> present = list_checkpoints(output);
  const bool fresh = options.resume == "none" || (options.resume == "auto" && present.empty());
  if (options.resume == "none" && !present.empty()) {
    fail("--resume none: ", output.native(), " already holds ", present.size(),
         " checkpoints; choose another run.output, remove them, or resume");
  }
  if (fresh && options.init_from.empty()) return {};
  if (fresh) return {RunStart::From::init, sound_checkpoint(options.init_from, note)};
  if (options.resume == "auto") return resume_newest(output, options, note);

  return resume_named(output, present, options, note);
}

std::string named_for_init(const std::string& path) { return canonical_path(path).string(); }

RunStart agree_on_start(const fs::path& output, const StartOptions& options,
                        Communicator& communicator, std::unique_ptr<RunLock>& lock,
                        const Note& note) {
  RunStart start;
  together(communicator, [&] {
    if (communicator.rank() != 0) return;
    std::error_code ignored;
    if (fs::is_directory(output, ignored)) lock = std::make_unique<RunLock>(output);
    start = find_start(output, options, note);
  });
  std::array<int64_t, 2> numbers{static_cast<int64_t>(start.from), start.skip_steps};
  communicator.broadcast(std::as_writable_bytes(std::span(numbers)), 0);
  return {static_cast<RunStart::From>(numbers[0]),
          broadcast_text(communicator, start.checkpoint.string(), 0), numbers[1]};
}

}  // namespace rodimus
