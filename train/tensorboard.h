// Scalars for TensorBoard, without its libraries: an event file is a row of TFRecords, each a
// hand-encoded protobuf Event (tensorboard/compat/proto/event.proto and summary.proto).
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>

namespace rodimus {

// CRC-32C (Castagnoli), as TFRecords use it.
uint32_t crc32c(std::string_view bytes);

class TensorBoardWriter {
 public:
  // Starts a new event file in `folder`, which is created. Its name sorts after those of all files
  // that are there, since TensorBoard reads them in that order, and TensorBoard discards what they
  // say of steps after resume_step; -1: a fresh run. Throws Error when the file cannot be written.
  TensorBoardWriter(const std::filesystem::path& folder, int64_t resume_step);

  struct Scalar {
    std::string tag;  // "train/loss"
    float value;
  };
  // One event; flushed. After a write error (disk full) one warning goes to stderr, and no more is
  // written: the run goes on.
  void write(int64_t step, std::span<const Scalar> scalars);

  const std::filesystem::path& file() const { return file_; }

 private:
  void record(const std::string& event);

  std::filesystem::path file_;
  std::ofstream out_;
};

}  // namespace rodimus
