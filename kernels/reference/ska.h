// Specification of kernels/ska.h: sliding-window softmax attention, pair by pair. Number is double
// or std::complex<double> (for derivatives by complex step).
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <vector>

#include "kernels/ska.h"

namespace rodimus::reference {

// o (B,T,H,D), lse (B,H,T) <- q, k, v as in ska_forward.
template <class Number>
void ska(Number* o, Number* lse, const Number* q, const Number* k, const Number* v,
         const int32_t* starts, SkaDims dims) {
  using std::exp, std::log, std::sqrt;
  const int64_t D = dims.D, Tk = dims.Tk == 0 ? dims.T : dims.Tk;
  for (int64_t b = 0; b < dims.B; ++b) {
    for (int64_t i = 0; i < dims.T; ++i) {
      const int64_t position = i + Tk - dims.T;
      int64_t first = dims.left < 0 ? 0 : std::max<int64_t>(0, position - dims.left);
      if (starts != nullptr) first = std::max<int64_t>(first, starts[b * dims.T + i]);
      for (int64_t h = 0; h < dims.H; ++h) {
        const int64_t row = ((b * dims.T + i) * dims.H + h) * D;
        std::vector<Number> score;
        double largest = -INFINITY;
        for (int64_t j = first; j <= position; ++j) {
          Number s = 0;
          for (int64_t d = 0; d < D; ++d)
            s += q[row + d] * k[((b * Tk + j) * dims.Hk + h % dims.Hk) * D + d];
          score.push_back(s / sqrt(static_cast<double>(D)));
          largest = std::max(largest, std::real(score.back()));
        }
        Number sum = 0;
        for (Number& s : score) sum += s = exp(s - largest);
        lse[(b * dims.H + h) * dims.T + i] = log(sum) + largest;
        for (int64_t d = 0; d < D; ++d) {
          o[row + d] = 0;
          for (int64_t j = first; j <= position; ++j)
            o[row + d] += score[static_cast<size_t>(j - first)] / sum *
                          v[((b * Tk + j) * dims.Hv + h % dims.Hv) * D + d];
        }
      }
    }
  }
}

}  // namespace rodimus::reference
