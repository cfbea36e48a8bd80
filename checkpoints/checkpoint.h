// Checkpoints: one HDF5 file per rank plus checkpoint.h5, whose virtual datasets show every tensor
// whole. See docs/formats.md.
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

// Everything a continuation needs besides the arrays.
struct TrainState {
  int64_t step = 0;         // optimizer steps done
  uint64_t sample = 0;      // global index of the next sample: the loader's whole state
  std::string state_json;   // trainer's own: RNG seed, counters of skipped steps, loss window, best
                            // validation loss ...
  std::string config_toml;  // the full resolved configuration of the run
  std::string tokenizer_hash;  // hex, "" when the run has no tokenizer
};

// A flat f32 array of which this rank holds (at least) `owned`; data points at element owned.begin.
struct OwnedArray {
  std::string group;  // "params", "adam_m", "adam_v"
  const float* data;
};

// Writes run_folder/step_XXXXXXXX, all ranks together. Commit: write under a temporary name, close,
// re-open and verify, fsync files and folder, rename, fsync the parent. On failure anywhere (disk
// full, no permission) every rank throws the same Error, the temporary folder is removed, and older
// checkpoints are untouched. Returns the committed folder.
std::filesystem::path save_checkpoint(const std::filesystem::path& run_folder,
                                      const TrainState& state, const FlatLayout& layout,
                                      Range owned, std::span<const OwnedArray> arrays,
                                      Communicator& communicator);

// A committed checkpoint, opened for reading by one process (each rank opens its own). The
// constructor checks presence, size and identity of every file; read() checks the checksums of what
// it reads. Errors name the file and, where known, the tensor.
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

  // Elements [range.begin, range.end) of the flat array `group` as this checkpoint's layout numbers
  // them; gaps become zeros.
  void read(const std::string& group, Range range, float* out) const;
  // One whole tensor.
  std::vector<float> read_tensor(const std::string& group, const std::string& name) const;
  // Reads everything once, for its checksums.
  void verify() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Throws Error naming the first difference (missing, extra, shape) between what the model needs and
// what the checkpoint has.
void require_same_tensors(const FlatLayout& model, const CheckpointReader& checkpoint);

// Committed folders of a run, ascending by step. Temporary and foreign folders are ignored.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& run_folder);

// The newest checkpoint that passes verify(); `problems` receives one line per newer one that does
// not.
std::optional<std::filesystem::path> newest_sound_checkpoint(
    const std::filesystem::path& run_folder, std::vector<std::string>* problems);

// Removes temporary folders that a killed save left behind, and checkpoints beyond the newest
// keep_last, except those whose step is a multiple of keep_every (0 = none). keep_last 0 keeps all.
// The folder `keep` is never removed.
void prune_checkpoints(const std::filesystem::path& run_folder, int64_t keep_last,
                       int64_t keep_every, const std::filesystem::path& keep);

}  // namespace rodimus
