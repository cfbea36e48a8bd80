// One input of text, byte by byte: a file or standard input, decompressed when its content is gzip,
// zstd, xz or bzip2, and without the byte order mark (BOM) that editors put before UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace rodimus {

class TextFile {
 public:
  // "-": standard input. Throws Error when the file cannot be opened or is not readable text:
  // UTF-16, Parquet, an archive, or content that does not match the file name.
  explicit TextFile(const std::string& name);
  ~TextFile();
  TextFile(const TextFile&) = delete;
  TextFile& operator=(const TextFile&) = delete;

  // Reads up to `size` bytes; returns 0 only at the end. Throws Error on a damaged or truncated
  // file: compressed text that ends early is never taken for the whole.
  size_t read(char* to, size_t size);

  bool compressed() const;
  size_t mark_bytes() const;         // of the BOM that was skipped: 0 or 3
  uint64_t compressed_read() const;  // bytes of the compressed file consumed so far

 private:
  struct Stream;
  std::unique_ptr<Stream> stream_;
};

// The name without .gz, .zst, .xz or .bz2: "x.jsonl.gz" is a .jsonl file.
std::string without_compression(const std::string& name);
bool named_as_compressed(const std::string& name);

// Advice for users who have Parquet files.
std::string parquet_advice(const std::string& file);

}  // namespace rodimus
