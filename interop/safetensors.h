// Safetensors: the format in which Hugging Face stores weights. A file is the length of its
// header (8 bytes, little endian), the header (a JSON object of name -> type, shape, bytes) and the
// tensors, one after the other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rodimus {

struct StoredTensor {
  std::string name;
  std::string type;  // as the header spells it: "F32", "BF16", "I64", ...
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes, counted from the end of the header

  int64_t numel() const;
  std::string describe() const;  // "F32 (97, 32)"
};

// The tensors of a header, in the order of their bytes. `data_bytes` is what follows the header in
// the file, `origin` names the file in errors. Throws Error unless the tensors cover these bytes
// exactly, without gaps and overlaps, and each has the bytes that its shape and type need.
std::vector<StoredTensor> parse_safetensors_header(std::string_view header, uint64_t data_bytes,
                                                   const std::string& origin);

// The inverse: the beginning of a file up to the first tensor's bytes, the length included. Padded
// with blanks to a multiple of 8 bytes, and marked as written for PyTorch, without which
// transformers refuses a file. The tensors must cover the bytes after it as above.
std::string safetensors_header(std::span<const StoredTensor> tensors);

// One file, open for reading. The constructor reads and checks the header only.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&& other) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }

  // Elements [first, first + count) of `tensor`, which is one of tensors() and of type F32, BF16 or
  // F16, as f32 (exact).
  void read(const StoredTensor& tensor, int64_t first, int64_t count, float* out) const;

 private:
  void read_bytes(uint64_t position, void* into, size_t bytes) const;

  std::filesystem::path path_;
  std::vector<StoredTensor> tensors_;
  uint64_t data_begin_ = 0;  // position in the file
  int fd_ = -1;
};

// Whether SafetensorsFile::read() converts this type.
bool is_readable_type(const std::string& type);

// The weights in a folder: model.safetensors, or the shards that model.safetensors.index.json
// lists.
class WeightFolder {
 public:
  // Throws Error when the folder has neither file, or when index and shards disagree.
  explicit WeightFolder(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }

  struct Place {
    const SafetensorsFile* file;
    const StoredTensor* tensor;
  };
  const std::map<std::string, Place>& tensors() const { return places_; }

 private:
  void add(const SafetensorsFile& file);

  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Place> places_;
};

// The shard of every tensor, from the text of an index. Throws Error when the text is no index, or
// names a file outside its own folder.
std::map<std::string, std::string> parse_weight_map(std::string_view text,
                                                    const std::string& origin);

}  // namespace rodimus
