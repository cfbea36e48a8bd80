// The loop of head_loss over blocks of rows, shared by the backends: the logits of a block,
// cross-entropy and its gradient (in place or beside them), and the two products with that
// gradient. For kernels/cpu/head_loss.cpp and kernels/cuda/head_loss.cu.
#pragma once

#include <algorithm>
#include <numeric>
#include <type_traits>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/head_loss.h"
#include "kernels/memory.h"

namespace rodimus {

inline void check_head_loss(const HeadLossDims& dims) {
  CHECK(dims.rows >= 0 && dims.dim >= 1 && dims.vocab >= 1, "head_loss: rows = ", dims.rows,
        ", dim = ", dims.dim, ", vocab = ", dims.vocab, "; rows >= 0, dim and vocab >= 1 expected");
}

// Calls cross_entropy(first, rows, dz, logits, ld) for rows [first, first + rows), z and dz (rows,
// ld); dz is null when dx and dw are: losses only.
template <class Backend, class T, class CrossEntropy>
void head_loss_blocks(Backend& exec, const HeadLossBackwardArgs<T>& args,
                      const CrossEntropy& cross_entropy) {
  const HeadLossDims& dims = args.dims;
  if (dims.rows == 0) return;
  const Device device = device_of(exec);
  const HeadLossBlock block = head_loss_block(device, dims);
  const int64_t ld = block.ld;
  const bool in_place = std::is_same_v<T, float>, backward = args.dx != nullptr;
  const memory::Scratch<float> logits(block.elements(), device);
  const memory::Scratch<T> gradients(backward && !in_place ? block.elements() : 0, device);
  T* dz = nullptr;
  if (backward) dz = in_place ? reinterpret_cast<T*>(logits.data()) : gradients.data();
  for (int64_t first = 0; first < dims.rows; first += block.rows) {
    const int64_t rows = std::min(block.rows, dims.rows - first);
    const T* x_block = args.x + first * dims.dim;
    gemm(exec, {.m = rows, .n = dims.vocab, .k = dims.dim, .transpose_b = true, .ldc = ld},
         logits.data(), x_block, args.w, 0.0f);
    cross_entropy(first, rows, dz, static_cast<const float*>(logits.data()), ld);
    if (!backward) continue;
    gemm(exec, {.m = rows, .n = dims.dim, .k = dims.vocab, .lda = ld}, args.dx + first * dims.dim,
         dz, args.w, 0.0f);
    gemm(exec, {.m = dims.vocab, .n = dims.dim, .k = rows, .transpose_a = true, .lda = ld}, args.dw,
         dz, x_block, 1.0f);
  }
}

// Scratch of the loop: logits, gradients, and the copies made by the product that needs most of
// them.
template <class Backend>
ScratchBytes head_loss_blocks_scratch(const Backend& backend, Direction direction, DType type,
                                      const HeadLossDims& dims) {
  if (dims.rows == 0) return {};
  const HeadLossBlock block = head_loss_block(device_of(backend), dims);
  const bool backward = direction == Direction::backward;
  std::vector<ScratchBytes> products{gemm_scratch(
      backend, type, DType::f32,
      {.m = block.rows, .n = dims.vocab, .k = dims.dim, .transpose_b = true, .ldc = block.ld})};
  if (backward) {
    products.push_back(gemm_scratch(
        backend, type, type, {.m = block.rows, .n = dims.dim, .k = dims.vocab, .lda = block.ld}));
    products.push_back(gemm_scratch(
        backend, type, DType::f32,
        {.m = dims.vocab, .n = dims.dim, .k = block.rows, .transpose_a = true, .lda = block.ld}));
  }
  const auto bytes = [](const ScratchBytes& blocks) {
    return std::accumulate(blocks.begin(), blocks.end(), int64_t{0});
  };
  ScratchBytes all =
      *std::max_element(products.begin(), products.end(),
                        [&](const auto& a, const auto& b) { return bytes(a) < bytes(b); });
  all.push_back(block.elements() * int64_t{sizeof(float)});
  const bool beside = backward && type != DType::f32;
  all.push_back(beside ? block.elements() * static_cast<int64_t>(size_of(type)) : 0);
  return all;
}

}  // namespace rodimus
