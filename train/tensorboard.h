// Scalars for TensorBoard, without its libraries: an event file is a sequence of TFRecords, each a
// hand-encoded protobuf Event (tensorboard/compat/proto/event.proto and summary.proto).
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>

namespace rodimus {

// CRC-32C (Castagnoli), used by TFRecords.
uint32_t crc32c(std::string_view bytes);

class TensorBoardWriter {
 public:
  // Creates `folder` and starts a new event file in it. Its name sorts after all existing ones,
  // because TensorBoard reads them in that order, and it makes TensorBoard discard what they
  // contain for steps after resume_step; -1: a fresh run. Throws Error when the file cannot be
  // written.
  TensorBoardWriter(const std::filesystem::path& folder, int64_t resume_step);

  struct Scalar {
    std::string tag;  // "train/loss"
    float value;
  };
  // Writes and flushes one event. After a write error (disk full) one warning goes to stderr,
  // nothing more is written, and the run continues.
  void write(int64_t step, std::span<const Scalar> scalars);

  const std::filesystem::path& file() const { return file_; }

 private:
  void record(const std::string& event);

  std::filesystem::path file_;
  std::ofstream out_;
};

}  // namespace rodimus
