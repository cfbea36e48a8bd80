// The stages of save_checkpoint() as separate calls, so that tests can inject failures between
// them.
#pragma once

#include <filesystem>
#include <memory>
#include <span>

#include "checkpoints/checkpoint.h"

namespace rodimus {

// Arguments, errors and guarantees as in save_checkpoint().
class CheckpointSave {
 public:
  // Collective: agrees on a name and creates the temporary folder. The memory of `arrays` must not
  // change until write() returns.
  CheckpointSave(const std::filesystem::path& run_folder, const TrainState& state,
                 const FlatLayout& layout, Range owned, std::span<const OwnedArray> arrays,
                 Communicator& communicator);
  ~CheckpointSave();  // if not committed, rank 0 removes the temporary folder
  CheckpointSave(const CheckpointSave&) = delete;
  CheckpointSave& operator=(const CheckpointSave&) = delete;

  // Writes this rank's file, closes it, reopens and compares it, and flushes it. It needs no other
  // rank, so any thread may call it. An error is kept for commit().
  void write() noexcept;
  // Collective: writes checkpoint.h5 and manifest.json, then renames. Returns the committed folder.
  std::filesystem::path commit(Communicator& communicator);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rodimus
