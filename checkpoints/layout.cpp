#include "checkpoints/layout.h"

#include <functional>
#include <numeric>
#include <unordered_set>

#include "base/error.h"

namespace rodimus {
namespace {

int64_t product(std::span<const int64_t> values) {
  return std::accumulate(values.begin(), values.end(), int64_t{1}, std::multiplies<>());
}

// Cuts elements [begin, end) of the sub-tensor shape[axis...] at index prefix[0..axis).
void cut(std::span<const int64_t> shape, std::vector<int64_t>& prefix, int64_t begin, int64_t end,
         std::vector<Box>& boxes) {
  if (begin == end) return;
  const size_t axis = prefix.size();
  const int64_t row = product(shape.subspan(axis + 1));
  const auto inside_row = [&](int64_t index, int64_t from, int64_t to) {
    prefix.push_back(index);
    cut(shape, prefix, from, to, boxes);
    prefix.pop_back();
  };
  if (begin / row == (end - 1) / row && end - begin < row) {
    return inside_row(begin / row, begin % row, begin % row + end - begin);
  }
  const int64_t first_whole = (begin + row - 1) / row, end_whole = end / row;
  if (begin % row != 0) inside_row(begin / row, begin % row, row);
  if (first_whole < end_whole) {
    Box box{prefix, std::vector<int64_t>(axis, 1)};
    box.start.resize(shape.size(), 0);
    box.start[axis] = first_whole;
    box.count.insert(box.count.end(), shape.begin() + static_cast<std::ptrdiff_t>(axis),
                     shape.end());
    box.count[axis] = end_whole - first_whole;
    boxes.push_back(std::move(box));
  }
  if (end % row != 0) inside_row(end_whole, 0, end % row);
}

}  // namespace

int64_t TensorEntry::numel() const { return product(shape); }

int64_t Box::numel() const { return product(count); }

Range owned_range(int64_t size, int rank, int world_size) {
  CHECK(size >= 0 && rank >= 0 && rank < world_size, "owned_range: size ", size, ", rank ", rank,
        " of ", world_size);
  const int64_t share = size / world_size / 16 * 16;
  return {rank * share, rank == world_size - 1 ? size : (rank + 1) * share};
}

void check_layout(const FlatLayout& layout) {
  if (layout.size < 0) fail("layout: size ", layout.size, " is negative");
  std::unordered_set<std::string_view> names;
  int64_t end = 0;
  for (const TensorEntry& tensor : layout.tensors) {
    const std::string& name = tensor.name;
    // '/' separates HDF5 groups, and '%' is an escape character in the source names of virtual
    // datasets.
    if (name.empty() || name == "." || name.find_first_of(std::string_view("/%\0", 3)) != name.npos)
      fail("layout: '", name, "' cannot be the name of a tensor; '/' and '%' are reserved");
    if (!names.insert(name).second) fail("layout: tensor '", name, "' appears twice");
    if (tensor.shape.empty() || tensor.shape.size() > 8)
      fail("layout: tensor '", name, "' has ", tensor.shape.size(), " dimensions, need 1 to 8");
    int64_t numel = 1;
    for (const int64_t dim : tensor.shape) {
      if (dim < 1 || __builtin_mul_overflow(numel, dim, &numel))
        fail("layout: tensor '", name, "' has the impossible shape ", shape_text(tensor.shape));
    }
    if (tensor.offset < end || tensor.offset > layout.size || numel > layout.size - tensor.offset)
      fail("layout: tensor '", name, "' with ", numel, " elements at offset ", tensor.offset,
           " overlaps its neighbour or leaves the buffer of ", layout.size);
    end = tensor.offset + numel;
  }
}

void check_ranges(std::span<const Range> ranges, int64_t size) {
  int64_t end = 0;
  for (size_t rank = 0; rank < ranges.size(); ++rank) {
    if (ranges[rank].begin != end || ranges[rank].end < end)
      fail("rank ", rank, " owns [", ranges[rank].begin, ", ", ranges[rank].end,
           "), must start at ", end);
    end = ranges[rank].end;
  }
  if (end != size) fail("the ranks own ", end, " of ", size, " elements");
}

Range elements_in(const TensorEntry& tensor, Range flat) {
  const Range common = intersect({tensor.offset, tensor.offset + tensor.numel()}, flat);
  return {common.begin - tensor.offset, common.end - tensor.offset};
}

std::vector<Box> boxes_of(std::span<const int64_t> shape, Range range) {
  std::vector<Box> boxes;
  std::vector<int64_t> prefix;
  cut(shape, prefix, range.begin, range.end, boxes);
  return boxes;
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

}  // namespace rodimus
