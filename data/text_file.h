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
  // "-": standard input. Throws Error when the file cannot be opened, or is no text that we read:
  // UTF-16, Parquet, an archive of files, a name that promises another content.
  explicit TextFile(const std::string& name);
  ~TextFile();
  TextFile(const TextFile&) = delete;
  TextFile& operator=(const TextFile&) = delete;

  // Up to `size` bytes; 0 at the end only. Throws Error on a file that is damaged or cut short:
  // compressed text that ends early is never taken for all of it.
  size_t read(char* to, size_t size);

  bool compressed() const;
  size_t mark_bytes() const;         // of the BOM that was left out: 0 or 3
  uint64_t compressed_read() const;  // bytes of the compressed file that are used up

 private:
  struct Stream;
  std::unique_ptr<Stream> stream_;
};

// The name without .gz, .zst, .xz or .bz2: "x.jsonl.gz" is a .jsonl file.
std::string without_compression(const std::string& name);
bool named_as_compressed(const std::string& name);

// What to tell somebody who has Parquet files.
std::string parquet_advice(const std::string& file);

}  // namespace rodimus
