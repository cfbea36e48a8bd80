// Powers of two for softmax: the caller folds log2(e) into the scores once, and each element then
// costs a third less than e^x.
#pragma once

#include "kernels/cpu/simd.h"

namespace rodimus::cpu {

// 2^x for x <= 126, within 1e-7 relative; 0 below -126. NaN in, NaN out.
//   x = n + f, |f| <= 1/2; 2^f is a polynomial interpolated at Chebyshev nodes, 2^0 = 1 exactly.
inline simd::Vec exp2(simd::Vec x) {
  using namespace simd;
  const Vec shifted = x + kRound;
  const Vec f = x - (shifted - kRound);
  Vec p = f * 1.54614449e-4f + 1.3400428e-3f;
  p = p * f + 9.61805694e-3f;
  p = p * f + 5.55032715e-2f;
  p = p * f + 2.40226507e-1f;
  p = p * f + 6.93147182e-1f;
  p = p * f + 1.0f;
  // A product rather than an addition to the exponent, so that NaN stays NaN.
  const Vec power = p * from_bits((bits_of(shifted) << 23) + 0x3f800000u);
  return x < -126.0f ? Vec{} : power;
}

}  // namespace rodimus::cpu
