// The checkpoint of a run: what it contains, and how it is written and read back, side by side in
// run_state.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "train/config/resolve.h"
#include "train/optimizer.h"

namespace rodimus {

// Data skipped by --skip-steps: before step `step` + 1, the samples of `steps` steps.
struct LeftOut {
  int64_t step = 0, steps = 0;
  uint64_t from = 0, to = 0;  // samples [from, to)
};

// What a run carries from step to step besides its arrays.
struct RunState {
  int64_t step = 0;     // optimizer steps done
  uint64_t sample = 0;  // global index of the next sample: the loader's whole state
  int64_t updates = 0;  // steps that changed the parameters: AdamW's t
  // Steps that did not, because loss or gradient was not finite.
  int64_t skipped = 0, skipped_in_a_row = 0;
  int64_t evaluated_step = -1;
  std::string data;       // fingerprint of data.train
  std::string init_from;  // --init-from when the run began, "" = none
  bool init_moments = false;
  int64_t threads = 0;  // on rank 0; affects the rounding of sums; 0 = unknown
  std::vector<LeftOut> left_out;

  uint64_t samples_left_out() const;
};

// What is stored besides the arrays.
TrainState stored_form(const RunState& state, const ResolvedConfig& config,
                       std::string tokenizer_hash);
// The inverse of stored_form(). Both throw Error when the checkpoint is not that of a training run.
RunState run_state(const CheckpointReader& checkpoint);
Config config_of(const CheckpointReader& checkpoint);

// The positions of the parameters in their flat buffer, as checkpoints describe them.
FlatLayout layout_of(const ParameterBuffers& buffers);

// Saves parameters, the optimizer's state and `stored` as a checkpoint in the folder `output`; each
// rank writes its share. Throws SharedError as save_checkpoint() does, and NotFinite if a parameter
// is not finite, because a run cannot continue from there. Collective. Returns the step folder.
std::filesystem::path save_run(const std::filesystem::path& output, const TrainState& stored,
                               Exec& exec, const ParameterBuffers& buffers, Optimizer& optimizer,
                               Communicator& communicator);
class NotFinite : public SharedError {
 public:
  using SharedError::SharedError;
};

// Reads the parameters, the optimizer's state and its number of updates. Throws Error naming a
// tensor with NaN or infinity, and as read_parameters() does.
void restore(Exec& exec, const CheckpointReader& checkpoint, ParameterBuffers& buffers,
             Optimizer& optimizer);

// Reads only the parameters, and refreshes their bf16 copy. Throws Error when tensors are missing
// or have another shape, and when a parameter is NaN or infinite.
void read_parameters(Exec& exec, const CheckpointReader& checkpoint, ParameterBuffers& buffers);

}  // namespace rodimus
