// The stages of save_checkpoint(), apart: between them tests break what may break there.
#pragma once

#include <filesystem>
#include <memory>
#include <span>

#include "checkpoints/checkpoint.h"

namespace rodimus {

// Arguments, errors and guarantees as in save_checkpoint().
class CheckpointSave {
 public:
  // Collective: agrees on a name and makes the temporary folder. The memory of `arrays` must stay
  // as it is until write() returns.
  CheckpointSave(const std::filesystem::path& run_folder, const TrainState& state,
                 const FlatLayout& layout, Range owned, std::span<const OwnedArray> arrays,
                 Communicator& communicator);
  ~CheckpointSave();  // not committed: rank 0 removes the temporary folder
  CheckpointSave(const CheckpointSave&) = delete;
  CheckpointSave& operator=(const CheckpointSave&) = delete;

  // This rank's file: written, closed, opened again, compared, flushed. Needs no other rank, so any
  // thread may call it. Keeps its error for commit().
  void write() noexcept;
  // Collective: checkpoint.h5 and manifest.json, then the rename. Returns the committed folder.
  std::filesystem::path commit(Communicator& communicator);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rodimus
