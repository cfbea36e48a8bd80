// Checkpoints: a folder step_00001000 with one HDF5 file per rank (its share of the flat buffers),
// checkpoint.h5, whose virtual datasets present every tensor as a whole, and manifest.json with the
// size and checksum of each file. See docs/formats.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dist/communicator.h"

namespace rodimus {

// Where each tensor lies in the flat buffers. Offsets ascend, gaps (alignment) hold zeros and are
// not saved.
struct TensorEntry {
  std::string name;
  std::vector<int64_t> shape;
  int64_t offset = 0;
  int64_t numel() const;
};
struct FlatLayout {
  std::vector<TensorEntry> tensors;
  int64_t size = 0;  // of the flat buffer, gaps included
};

struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

// The share of `size` elements that `rank` writes: equal parts in multiples of 16 elements; the
// last rank takes the remainder.
Range owned_range(int64_t size, int rank, int world_size);

// Everything that resuming needs besides the arrays. The two texts belong to the run;
// train/run_state.h documents what they contain.
struct TrainState {
  int64_t step = 0;     // optimizer steps done
  uint64_t sample = 0;  // global index of the next sample: the loader's whole state
  std::string state_json;
  std::string config_toml;     // the configuration that the run uses
  std::string tokenizer_hash;  // hex, "" when the run has no tokenizer
};

// A flat f32 array of which this rank holds (at least) the range `owned`; data points at element
// owned.begin.
struct OwnedArray {
  std::string group;  // "params", "adam_m", "adam_v"
  const float* data;
};

// Saves run_folder/step_XXXXXXXX and returns that folder. Collective. Every rank passes the same
// state and layout (step, sample and tensors are checked; the texts are taken from rank 0), and the
// ranges of the ranks cover [0, layout.size) in order. The run folder must be shared by all ranks
// (one node, or a network file system).
// Files are written under a temporary name, closed, reopened and compared, flushed, then renamed: a
// failure anywhere (disk full, no permission) throws the same Error on every rank, removes the
// temporary folder and leaves older checkpoints untouched. A process killed at any moment leaves at
// most a temporary folder, which readers ignore and prune_checkpoints() removes. An existing folder
// of the same step is replaced, and stays intact until then.
std::filesystem::path save_checkpoint(const std::filesystem::path& run_folder,
                                      const TrainState& state, const FlatLayout& layout,
                                      Range owned, std::span<const OwnedArray> arrays,
                                      Communicator& communicator);

// A committed checkpoint, opened for reading by one process (each rank opens its own). The
// constructor checks the presence, size and identity of every file and the checksums of
// manifest.json and checkpoint.h5, which takes milliseconds; read() verifies the checksums of the
// chunks it reads. Errors name the file and, where known, the tensor. Any thread may read.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& step_folder);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;
  CheckpointReader& operator=(CheckpointReader&&) noexcept;

  const std::filesystem::path& folder() const;
  const TrainState& state() const;
  const FlatLayout& layout() const;
  int world_size() const;  // of the run that wrote the checkpoint
  const std::vector<std::string>& groups() const;

  // Elements [range.begin, range.end) of the flat array `group`, numbered as in `layout`; gaps
  // become zeros. Tensors are found by name, so a model with another alignment or order reads
  // correctly.
  void read(const std::string& group, const FlatLayout& layout, Range range, float* out) const;
  // The same with this checkpoint's own layout.
  void read(const std::string& group, Range range, float* out) const;
  // One whole tensor.
  std::vector<float> read_tensor(const std::string& group, const std::string& name) const;
  // Reads every byte of every file once; throws Error if any has changed since the save.
  void verify() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Throws Error naming the first difference (missing, extra, shape) between what the model needs and
// what the checkpoint has. Offsets may differ: pass the model's layout to read().
void require_same_tensors(const FlatLayout& model, const CheckpointReader& checkpoint);

// Committed checkpoint folders of a run, ascending by step. Temporary and unrelated folders are
// ignored; the list is empty if the run folder does not exist.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& run_folder);

// The newest checkpoint that passes verify(); `problems` (may be null) receives one line per newer
// one that does not.
std::optional<std::filesystem::path> newest_sound_checkpoint(
    const std::filesystem::path& run_folder, std::vector<std::string>* problems);

// Removes temporary folders that a killed save left behind, and checkpoints beyond the newest
// keep_last, except those whose step is a multiple of keep_every (0 = none). keep_last 0 keeps all.
// The folder `keep` (may be empty) is never removed. Call it on one rank, and not during a save of
// this run.
void prune_checkpoints(const std::filesystem::path& run_folder, int64_t keep_last,
                       int64_t keep_every, const std::filesystem::path& keep);

}  // namespace rodimus
