// Checkpoints: a folder step_00001000 with one HDF5 file per rank (its share of the flat buffers),
// checkpoint.h5, whose virtual datasets show every tensor whole, and manifest.json with the size
// and the checksum of each file. See docs/formats.md.
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

// The share of `size` elements that `rank` writes: equal parts in multiples of 16 elements, the
// last one takes the rest.
Range owned_range(int64_t size, int rank, int world_size);

// Everything that resuming needs besides the arrays. The two texts are the run's own; what is in
// them is said in train/run_state.h.
struct TrainState {
  int64_t step = 0;     // optimizer steps done
  uint64_t sample = 0;  // global index of the next sample: the loader's whole state
  std::string state_json;
  std::string config_toml;     // the configuration that the run computes with
  std::string tokenizer_hash;  // hex, "" when the run has no tokenizer
};

// A flat f32 array of which this rank holds (at least) `owned`; data points at element owned.begin.
struct OwnedArray {
  std::string group;  // "params", "adam_m", "adam_v"
  const float* data;
};

// Saves run_folder/step_XXXXXXXX and returns that folder. Collective. Every rank passes the same
// state and layout (its step, sample and tensors are checked; of the texts those of rank 0 are
// kept), and the ranges of the ranks cover [0, layout.size) in order. The run folder must be shared
// by all ranks (one node, or a network file system).
// Written under a temporary name, closed, opened again and compared, flushed, renamed: a failure
// anywhere (disk full, no permission) throws the same Error on every rank, removes the temporary
// folder and leaves older checkpoints untouched. A process killed at any moment leaves at most a
// temporary folder, which readers ignore and prune_checkpoints() removes. A folder of the same step
// is replaced, and stays whole until then.
std::filesystem::path save_checkpoint(const std::filesystem::path& run_folder,
                                      const TrainState& state, const FlatLayout& layout,
                                      Range owned, std::span<const OwnedArray> arrays,
                                      Communicator& communicator);

// A committed checkpoint, opened for reading by one process (each rank opens its own). The
// constructor checks presence, size and identity of every file and the checksums of manifest.json
// and checkpoint.h5, which costs milliseconds; read() checks the checksums of the chunks it reads.
// Errors name the file and, where known, the tensor. Any thread may read.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& step_folder);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;
  CheckpointReader& operator=(CheckpointReader&&) noexcept;

  const std::filesystem::path& folder() const;
  const TrainState& state() const;
  const FlatLayout& layout() const;
  int world_size() const;  // of the run that wrote it
  const std::vector<std::string>& groups() const;

  // Elements [range.begin, range.end) of the flat array `group` as `layout` numbers them; gaps
  // become zeros. Tensors are found by name, so a model with other alignment or order reads right.
  void read(const std::string& group, const FlatLayout& layout, Range range, float* out) const;
  // The same by this checkpoint's own layout.
  void read(const std::string& group, Range range, float* out) const;
  // One whole tensor.
  std::vector<float> read_tensor(const std::string& group, const std::string& name) const;
  // Reads every byte of every file once: throws Error when any of them changed since the save.
  void verify() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Throws Error naming the first difference (missing, extra, shape) between what the model needs and
// what the checkpoint has. Offsets may differ: read() with the model's layout.
void require_same_tensors(const FlatLayout& model, const CheckpointReader& checkpoint);

// Committed folders of a run, ascending by step. Temporary and foreign folders are ignored; a run
// folder that does not exist has none.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& run_folder);

// The newest checkpoint that passes verify(); `problems` (may be null) receives one line per newer
// one that does not.
std::optional<std::filesystem::path> newest_sound_checkpoint(
    const std::filesystem::path& run_folder, std::vector<std::string>* problems);

// Removes temporary folders that a killed save left behind, and checkpoints beyond the newest
// keep_last, except those whose step is a multiple of keep_every (0 = none). keep_last 0 keeps all.
// The folder `keep` (may be empty) is never removed. Call it on one rank, and not while a save of
// this run is under way.
void prune_checkpoints(const std::filesystem::path& run_folder, int64_t keep_last,
                       int64_t keep_every, const std::filesystem::path& keep);

}  // namespace rodimus
