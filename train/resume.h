// Where a run starts: nothing, the newest sound checkpoint, or a named one.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "checkpoints/checkpoint.h"
#include "train/config.h"
#include "train/optimizer.h"

namespace rodimus {

// resume: "auto" (newest sound checkpoint of run.output, else a fresh start), "none" (fresh start;
// an error when run.output holds checkpoints: nothing is ever overwritten unasked), or the path of
// a checkpoint or of a run; run.output must not hold later checkpoints then. The result has passed
// verify(). `note` receives a line per damaged checkpoint that was passed over. Throws Error when
// checkpoints exist and none is sound.
std::optional<std::filesystem::path> find_start(
    const Config& config, const std::string& resume,
    const std::function<void(const std::string&)>& note);

// One line per key whose value differs from the checkpoint's, except those that cannot matter to
// the result.
std::vector<std::string> changed_keys(const Config& now, const CheckpointReader& checkpoint);

// Throws Error when the checkpoint was written by a different model, or when the order of the data
// would change (seed, seq_len, shuffle): each names key, old and new value.
void require_same_run(const Config& now, const CheckpointReader& checkpoint);

// Reads parameters and moments. Throws Error naming a tensor that holds NaN or infinity.
void restore(Exec& exec, const CheckpointReader& checkpoint, ParameterBuffers& buffers,
             AdamW& optimizer);

}  // namespace rodimus
