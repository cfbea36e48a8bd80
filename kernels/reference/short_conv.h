// silu(bias + causal depthwise convolution), tap by tap. Tests only.
#pragma once

#include <cstdint>

#include "kernels/reference/functions.h"

namespace rodimus::reference {

// history and starts as in kernels/short_conv.h, may be null.
template <class R>
void short_conv(R* y, const R* x, const R* weight, const R* bias, const R* history,
                const int32_t* starts, int64_t B, int64_t T, int64_t D, int64_t width) {
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t t = 0; t < T; ++t) {
      const int64_t start = starts == nullptr ? 0 : starts[b * T + t];
      for (int64_t d = 0; d < D; ++d) {
        R z = bias[d];
        for (int64_t i = 0; i < width; ++i) {
          const int64_t source = t - (width - 1) + i;
          if (source >= start) z += weight[d * width + i] * x[(b * T + source) * D + d];
          if (source < 0 && start == 0 && history != nullptr)
            z += weight[d * width + i] * history[(b * (width - 1) + width - 1 + source) * D + d];
        }
        y[(b * T + t) * D + d] = silu(z);
      }
    }
  }
}

}  // namespace rodimus::reference
