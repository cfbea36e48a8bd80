#include "interop/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "interop/half.h"
#include "interop/import.h"
#include "interop/safetensors.h"
#include "kernels/dtype.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPiece = int64_t{1} << 18;  // elements

// One stored tensor: elements of a parameter from `first` on.
struct Part {
  const Parameter* parameter;
  int64_t first;
  StoredTensor tensor;
};

std::vector<Part> parts_of(std::span<Parameter* const> parameters, const ExportPlan& plan) {
  std::vector<Part> parts;
  for (const Parameter* p : parameters) {
    const std::vector<std::string> names = stored_names(p->name, plan.form);
    const auto count = static_cast<int64_t>(names.size());
    StoredTensor tensor{.name = "", .type = names_of(plan.type).safetensors, .shape = p->shape};
    CHECK(tensor.shape.front() % count == 0, p->name, ": ", to_string(p->shape),
          " cannot be split");
    tensor.shape.front() /= count;
    for (int64_t i = 0; i < count; ++i) {
      tensor.name = names[static_cast<size_t>(i)];
      parts.push_back({p, i * tensor.numel(), tensor});
    }
  }
  return parts;
}

// Cuts the parts into files, and gives each its place in its file.
std::vector<std::span<Part>> shards_of(std::span<Part> parts, const ExportPlan& plan) {
  std::vector<std::span<Part>> shards;
  size_t begin = 0;
  uint64_t position = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    StoredTensor& tensor = parts[i].tensor;
    const uint64_t bytes = static_cast<uint64_t>(tensor.numel()) * names_of(plan.type).bytes;
    if (i > begin && bytes > plan.shard_bytes - std::min(position, plan.shard_bytes)) {
      shards.push_back(parts.subspan(begin, i - begin));
      begin = i;
      position = 0;
    }
    tensor.begin = position;
    tensor.end = position += bytes;
  }
  shards.push_back(parts.subspan(begin));
  return shards;
}

float largest_of(WeightType type) {
  return type == WeightType::f16    ? kLargestHalf
         : type == WeightType::bf16 ? 0x1.fep127f
                                    : std::numeric_limits<float>::max();
}

void require_representable(std::span<const float> values, const Part& part, int64_t first,
                           WeightType type, const std::string& origin) {
  const float largest = largest_of(type);
  // NaN is refused too: no comparison with it is true.
  const auto bad = std::find_if_not(values.begin(), values.end(),
                                    [largest](float x) { return std::abs(x) <= largest; });
  if (bad == values.end()) return;
  const auto element = part.first + first + (bad - values.begin());
  fail(origin, ": element ", element, " of ", part.parameter->name, " is ", *bad,
       std::isfinite(*bad)
           ? concat(", but the largest number of ", names_of(type).option, " is ", largest,
                    "; use --dtype ", type == WeightType::f16 ? "bf16 or f32" : "f32")
           : "; the run had diverged, use an earlier checkpoint");
}

void write_rounded(AtomicFile& file, std::span<const float> values, WeightType type) {
  if (type == WeightType::f32) {
    file.write(std::as_bytes(values));
    return;
  }
  std::vector<uint16_t> narrow(values.size());
  std::transform(values.begin(), values.end(), narrow.begin(),
                 [type](float x) { return type == WeightType::f16 ? to_half(x) : bf16(x).bits; });
  file.write(std::as_bytes(std::span<const uint16_t>(narrow)));
}

}  // namespace

uint64_t weight_bytes(std::span<Parameter* const> parameters, WeightType type) {
  uint64_t elements = 0;
  for (const Parameter* p : parameters) elements += static_cast<uint64_t>(numel_of(p->shape));
  return elements * names_of(type).bytes;
}

int64_t export_weights(const fs::path& folder, std::span<Parameter* const> parameters,
                       const ReadValues& read, const ExportPlan& plan, const std::string& origin,
                       const std::function<void(uint64_t bytes)>& written) {
  std::vector<Part> parts = parts_of(parameters, plan);
  const std::vector<std::span<Part>> shards = shards_of(parts, plan);
  nlohmann::ordered_json map;
  std::vector<float> piece(kPiece);
  uint64_t done = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        shards.size() == 1 ? "model.safetensors"
                           : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    AtomicFile file(folder / name);
    std::vector<StoredTensor> tensors;
    for (const Part& part : shards[i]) tensors.push_back(part.tensor);
    file.write(safetensors_header(tensors));
    for (const Part& part : shards[i]) {
      const int64_t count = part.tensor.numel();
      for (int64_t first = 0; first < count; first += kPiece) {
        const int64_t n = std::min(kPiece, count - first);
        const std::span<float> values(piece.data(), static_cast<size_t>(n));
        read(*part.parameter, part.first + first, n, values.data());
        require_representable(values, part, first, plan.type, origin);
        write_rounded(file, values, plan.type);
        written(done += values.size() * names_of(plan.type).bytes);
      }
      map[part.tensor.name] = name;
    }
    file.close();
    file.publish();
  }
  if (shards.size() > 1) {
    const nlohmann::ordered_json index{{"metadata", {{"total_size", done}}}, {"weight_map", map}};
    write_whole(folder / "model.safetensors.index.json", to_text(index, 2) + "\n");
  }
  return static_cast<int64_t>(shards.size());
}

}  // namespace rodimus
