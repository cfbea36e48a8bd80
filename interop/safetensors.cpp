#include "interop/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/words.h"
#include "interop/half.h"
#include "interop/text_file.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors is little endian");

// The limit of the reference implementation. A real header has about 100 bytes per tensor.
constexpr uint64_t kMostHeaderBytes = 100'000'000;
constexpr size_t kLengthBytes = 8;

// Bytes per element, 0 when the type is unknown.
uint64_t bytes_of(std::string_view type) {
  struct Size {
    std::string_view type;
    uint64_t bytes;
  };
  static constexpr std::array<Size, 15> kSizes{{{"BOOL", 1},
                                                {"U8", 1},
                                                {"I8", 1},
                                                {"F8_E4M3", 1},
                                                {"F8_E5M2", 1},
                                                {"I16", 2},
                                                {"U16", 2},
                                                {"F16", 2},
                                                {"BF16", 2},
                                                {"I32", 4},
                                                {"U32", 4},
                                                {"F32", 4},
                                                {"I64", 8},
                                                {"U64", 8},
                                                {"F64", 8}}};
  for (const Size& size : kSizes)
    if (size.type == type) return size.bytes;
  return 0;
}

StoredTensor parse_entry(const std::string& name, const json& entry, const std::string& origin) {
  const auto bad = [&](const char* what) {
    fail(origin, ": ", shortened(name), ": ", what,
         " (expected {\"dtype\", \"shape\", \"data_offsets\"} as safetensors defines them); the "
         "file is damaged");
  };
  if (!entry.is_object()) bad("its entry in the header is not an object");
  const auto dtype = entry.find("dtype"), shape = entry.find("shape"),
             offsets = entry.find("data_offsets");
  if (dtype == entry.end() || !dtype->is_string()) bad("\"dtype\" is not a string");
  if (shape == entry.end() || !shape->is_array()) bad("\"shape\" is not an array");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2)
    bad("\"data_offsets\" is not a pair of numbers");
  StoredTensor tensor;
  tensor.name = name;
  tensor.type = dtype->get<std::string>();
  uint64_t bytes = bytes_of(tensor.type);
  if (bytes == 0) {
    fail(origin, ": ", shortened(name), " has the unknown type ", shortened(tensor.type),
         "; weights must be F32, BF16 or F16");
  }
  for (const json& size : *shape) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > INT64_MAX)
      bad("\"shape\" has an entry that is no size");
    tensor.shape.push_back(size.get<int64_t>());
    if (__builtin_mul_overflow(bytes, size.get<uint64_t>(), &bytes) || bytes > INT64_MAX)
      bad("its size in bytes does not fit into 63 bits");
  }
  for (const json& offset : *offsets)
    if (!offset.is_number_unsigned()) bad("\"data_offsets\" has an entry that is no position");
  tensor.begin = (*offsets)[0].get<uint64_t>();
  tensor.end = (*offsets)[1].get<uint64_t>();
  if (tensor.begin > tensor.end) bad("\"data_offsets\" end before they begin");
  if (tensor.end - tensor.begin != bytes) {
    fail(origin, ": ", shortened(name), " takes ", tensor.end - tensor.begin, " bytes, but ",
         tensor.describe(), " needs ", bytes, "; the file is damaged");
  }
  return tensor;
}

[[noreturn]] void fail_with_errno(const fs::path& path, const char* what) {
  fail(path.native(), ": cannot ", what, ": ", std::strerror(errno));
}

}  // namespace

int64_t StoredTensor::numel() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

std::string StoredTensor::describe() const {
  std::string text = type + " (";
  for (size_t i = 0; i < shape.size(); ++i) text += concat(i > 0 ? ", " : "", shape[i]);
  return text + ")";
}

bool is_readable_type(const std::string& type) {
  return type == "F32" || type == "BF16" || type == "F16";
}

std::vector<StoredTensor> parse_safetensors_header(std::string_view header, uint64_t data_bytes,
                                                   const std::string& origin) {
  std::optional<std::string> repeated;
  const json object = try_parse_json(header, &repeated);
  if (!object.is_object())
    fail(origin,
         ": its header is not a JSON object; this is no safetensors file, or it is damaged");
  if (repeated) {
    fail(origin, ": its header has two entries ", shortened(*repeated),
         ", and only one can be meant; the file is damaged");
  }
  std::vector<StoredTensor> tensors;
  for (const auto& [name, entry] : object.items())
    if (name != "__metadata__") tensors.push_back(parse_entry(name, entry, origin));
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t covered = 0;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.end > data_bytes) {
      fail(origin, ": truncated: ", shortened(tensor.name), " ends at byte ", tensor.end, " of ",
           data_bytes, "; fetch the file again");
    }
    if (tensor.begin < covered) {
      fail(origin, ": ", shortened(tensor.name), " begins at byte ", tensor.begin,
           ", inside the tensor before it, which ends at ", covered, "; the file is damaged");
    }
    if (tensor.begin > covered) {
      fail(origin, ": bytes ", covered, " to ", tensor.begin, ", before ", shortened(tensor.name),
           ", belong to no tensor; the file is damaged");
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    fail(origin, ": its last ", data_bytes - covered,
         " bytes belong to no tensor; the file is damaged");
  }
  return tensors;
}

std::string safetensors_header(std::span<const StoredTensor> tensors) {
  nlohmann::ordered_json object{{"__metadata__", {{"format", "pt"}}}};
  for (const StoredTensor& tensor : tensors) {
    object[tensor.name] = {{"dtype", tensor.type},
                           {"shape", tensor.shape},
                           {"data_offsets", {tensor.begin, tensor.end}}};
  }
  std::string text = to_text(object);
  text.resize((text.size() + kLengthBytes - 1) / kLengthBytes * kLengthBytes, ' ');
  const uint64_t length = text.size();
  std::string prefix(kLengthBytes, '\0');
  std::memcpy(prefix.data(), &length, kLengthBytes);
  return prefix + text;
}

SafetensorsFile::SafetensorsFile(const fs::path& path) : path_(path) {
  // Non-blocking, or the open would wait for a writer if the path is a pipe.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) fail_with_errno(path, "open it");
  try {
    struct stat info {};
    if (::fstat(fd_, &info) != 0) fail_with_errno(path, "read its size");
    if (!S_ISREG(info.st_mode)) fail(path.native(), ": not a regular file");
    const uint64_t size = static_cast<uint64_t>(info.st_size);
    if (size < kLengthBytes) fail(path.native(), ": only ", size, " bytes: no safetensors file");
    uint64_t length = 0;
    read_bytes(0, &length, kLengthBytes);
    if (length > kMostHeaderBytes || length > size - kLengthBytes) {
      fail(path.native(), ": its header would have ", length, " bytes (the file has ", size,
           ", and a header at most ", kMostHeaderBytes,
           "); this is no safetensors file, or it is truncated");
    }
    std::string header(length, '\0');
    read_bytes(kLengthBytes, header.data(), header.size());
    data_begin_ = kLengthBytes + length;
    tensors_ = parse_safetensors_header(header, size - data_begin_, path.native());
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() {
  if (fd_ >= 0) ::close(fd_);
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : path_(std::move(other.path_)),
      tensors_(std::move(other.tensors_)),
      data_begin_(other.data_begin_),
      fd_(std::exchange(other.fd_, -1)) {}

void SafetensorsFile::read_bytes(uint64_t position, void* into, size_t bytes) const {
  auto* out = static_cast<std::byte*>(into);
  while (bytes > 0) {
    const ssize_t got = ::pread(fd_, out, bytes, static_cast<off_t>(position));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_with_errno(path_, "read it");
    if (got == 0) fail(path_.native(), ": became shorter while it was read");
    out += got;
    position += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
}

void SafetensorsFile::read(const StoredTensor& tensor, int64_t first, int64_t count,
                           float* out) const {
  CHECK(is_readable_type(tensor.type), tensor.name, ": cannot convert ", tensor.type);
  CHECK(first >= 0 && count >= 0 && first <= tensor.numel() - count, tensor.name, ": elements ",
        first, " to ", first + count, " of ", tensor.numel());
  const size_t n = static_cast<size_t>(count);
  const uint64_t width = bytes_of(tensor.type);
  const uint64_t position = data_begin_ + tensor.begin + static_cast<uint64_t>(first) * width;
  if (tensor.type == "F32") {
    read_bytes(position, out, n * width);
    return;
  }
  // The two-byte values go into the second half of `out` and are widened from the front: value i is
  // taken from bytes 2 (n + i), which f32 values 0 to i - 1 in bytes up to 4 i <= 2 (n + i) have
  // not reached.
  auto* raw = reinterpret_cast<std::byte*>(out) + n * width;
  read_bytes(position, raw, n * width);
  const bool brain = tensor.type == "BF16";
  for (size_t i = 0; i < n; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, raw + i * width, width);
    out[i] = brain ? std::bit_cast<float>(static_cast<uint32_t>(bits) << 16) : from_half(bits);
  }
}

std::map<std::string, std::string> parse_weight_map(std::string_view text,
                                                    const std::string& origin) {
  const json index = try_parse_json(text);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object() || map->empty()) {
    fail(origin,
         ": no object \"weight_map\" of tensors and their files: this is no index of "
         "safetensors shards");
  }
  std::map<std::string, std::string> files;
  for (const auto& [name, file] : map->items()) {
    const std::string shard = file.is_string() ? file.get<std::string>() : "";
    if (shard.empty() || shard.find('/') != std::string::npos || shard == "." || shard == "..") {
      fail(origin, ": weight_map: ", shortened(name), " is in ", shortened(to_text(file)),
           ": expected the name of a file in the same folder");
    }
    files[name] = shard;
  }
  return files;
}

WeightFolder::WeightFolder(const fs::path& folder) : folder_(folder) {
  const fs::path single = folder / "model.safetensors";
  const fs::path index = folder / "model.safetensors.index.json";
  std::error_code ignored;
  if (fs::exists(single, ignored)) {
    files_.emplace_back(single);
    add(files_.front());
    return;
  }
  if (!fs::exists(index, ignored)) {
    fail(folder.native(), ": neither model.safetensors nor model.safetensors.index.json is there",
         fs::exists(folder / "pytorch_model.bin", ignored)
             ? "; pytorch_model.bin is a Python pickle, which can run code: load it with "
               "transformers and save it again with save_pretrained()"
             : "");
  }
  const auto map = parse_weight_map(read_text_file(index), index.native());
  std::set<std::string> names;
  for (const auto& [tensor, file] : map) names.insert(file);
  files_.reserve(names.size());  // places_ points into files_
  for (const std::string& name : names) {
    files_.emplace_back(folder / name);
    add(files_.back());
  }
  for (const auto& [name, file] : map) {
    const auto place = places_.find(name);
    if (place == places_.end() || place->second.file->path().filename() != file)
      fail(index.native(), ": ", shortened(name), " is not in ", file, ", which it names");
  }
  for (const auto& [name, place] : places_) {
    if (!map.contains(name)) {
      fail(index.native(), ": ", shortened(name), " of ", place.file->path().filename().native(),
           " is not listed");
    }
  }
}

void WeightFolder::add(const SafetensorsFile& file) {
  for (const StoredTensor& tensor : file.tensors()) {
    const auto [place, fresh] = places_.try_emplace(tensor.name, Place{&file, &tensor});
    if (!fresh) {
      fail(file.path().native(), ": ", shortened(tensor.name), " is also in ",
           place->second.file->path().filename().native());
    }
  }
}

}  // namespace rodimus
