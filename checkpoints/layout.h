// Arithmetic on flat buffers: which part of which tensor lies where.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"

namespace rodimus {

// Throws Error unless names are unique and usable as HDF5 links, sizes are positive and do not
// overflow, and tensors lie in ascending order inside [0, size) without overlap.
void check_layout(const FlatLayout& layout);

// Throws Error unless the ranges of the ranks follow each other and cover [0, size).
void check_ranges(std::span<const Range> ranges, int64_t size);

inline Range intersect(Range a, Range b) {
  const int64_t begin = a.begin > b.begin ? a.begin : b.begin;
  const int64_t end = a.end < b.end ? a.end : b.end;
  return {begin, end > begin ? end : begin};
}

// Elements of the tensor that lie in `flat`, counted from the tensor's first element; may be empty.
Range elements_in(const TensorEntry& tensor, Range flat);

// A box of a tensor: element (start_0 .. start_0 + count_0 - 1, ...).
struct Box {
  std::vector<int64_t> start, count;
  int64_t numel() const;
};

// Row-major elements [range.begin, range.end) of a tensor as boxes, in order. A range cuts a matrix
// into the end of a row, whole rows and the start of a row: at most 2 * shape.size() - 1 boxes.
std::vector<Box> boxes_of(std::span<const int64_t> shape, Range range);

// "(48, 1, 4)"
std::string shape_text(std::span<const int64_t> shape);

}  // namespace rodimus
