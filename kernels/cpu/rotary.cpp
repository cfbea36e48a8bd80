// Rotary embedding. cos and sin of (start + r) theta come from those of start theta (one libm call
// per 64 tokens) and r theta (a table of 64 tokens) by the addition theorem in double: 1e-15
// accurate, and no libm call per element.
#include "kernels/rotary.h"

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace rodimus {

using namespace cpu;
namespace {

using simd::Vec;

constexpr int64_t kSpan = 64;

// cos and sin of position * base^(-2i/D), i < half.
void angles(double* c, double* s, double position, const RotaryDims& dims) {
  for (int64_t i = 0; i < dims.D / 2; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(dims.D);
    const double angle = position * std::pow(static_cast<double>(dims.base), exponent);
    c[i] = std::cos(angle);
    s[i] = std::sin(angle);
  }
}

// y = x rotated by direction * angle.
template <class T>
void rotate(const Cpu& exec, T* y, const T* x, const RotaryDims& dims, double direction) {
  CHECK(dims.D % 2 == 0, "rotary: D = ", dims.D, ", need an even head dimension");
  const int64_t half = dims.D / 2, span = std::min(kSpan, dims.T);
  const memory::Scratch<double> steps(2 * half * span);
  for (int64_t r = 0; r < span; ++r)
    angles(&steps[2 * half * r], &steps[2 * half * r + half], static_cast<double>(r), dims);
  const PerThread<double> starts(exec, 2 * half);
  const PerThread<float> rows(exec, 2 * half);
  const auto apply = [&](const T* from, T* to, const float* c, const float* s) {
    simd::for_lanes(half, [&](int64_t i, auto lanes) {
      const Vec a = simd::load(from + i, lanes), b = simd::load(from + half + i, lanes);
      const Vec cosine = simd::load(c + i, lanes), sine = simd::load(s + i, lanes);
      simd::store(to + i, a * cosine - b * sine, lanes);
      simd::store(to + half + i, b * cosine + a * sine, lanes);
    });
  };
  parallel_rows(exec, dims.T, dims.B * dims.H * dims.D, [&](int64_t begin, int64_t end) {
    double *c1 = starts.mine(), *s1 = c1 + half;
    float *c = rows.mine(), *s = c + half;
    for (int64_t t = begin; t < end; ++t) {
      if (t == begin || t % kSpan == 0)
        angles(c1, s1, static_cast<double>(dims.offset + t / kSpan * kSpan), dims);
      const double *c2 = &steps[2 * half * (t % kSpan)], *s2 = c2 + half;
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) {
        c[i] = static_cast<float>(c1[i] * c2[i] - s1[i] * s2[i]);
        s[i] = static_cast<float>(direction * (s1[i] * c2[i] + c1[i] * s2[i]));
      }
      for (int64_t b = 0; b < dims.B; ++b) {
        for (int64_t h = 0; h < dims.H; ++h) {
          const int64_t at = ((b * dims.T + t) * dims.H + h) * dims.D;
          apply(x + at, y + at, c, s);
        }
      }
    }
  });
}

}  // namespace

ScratchBytes rotary_scratch(const Cpu& exec, RotaryDims dims) {
  const int64_t half = dims.D / 2, span = std::min(kSpan, dims.T);
  return {2 * half * span * int64_t{sizeof(double)}, PerThread<double>::bytes(exec, 2 * half),
          PerThread<float>::bytes(exec, 2 * half)};
}

template <class T>
void rotary_forward(Cpu& exec, T* y, const T* x, RotaryDims dims) {
  rotate(exec, y, x, dims, 1);
}

template <class T>
void rotary_backward(Cpu& exec, T* dx, const T* dy, RotaryDims dims) {
  rotate(exec, dx, dy, dims, -1);
}

template void rotary_forward(Cpu&, float*, const float*, RotaryDims);
template void rotary_forward(Cpu&, bf16*, const bf16*, RotaryDims);
template void rotary_backward(Cpu&, float*, const float*, RotaryDims);
template void rotary_backward(Cpu&, bf16*, const bf16*, RotaryDims);

}  // namespace rodimus
