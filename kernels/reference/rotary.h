// Rotary position embedding, NeoX halves. Tests only.
#pragma once

#include <cmath>
#include <cstdint>

namespace rodimus::reference {

template <class R>
void rotary(R* y, const R* x, int64_t B, int64_t T, int64_t H, int64_t D, double base,
            int64_t offset) {
  for (int64_t row = 0; row < B * T * H; ++row) {
    const auto position = static_cast<double>(offset + row / H % T);
    for (int64_t i = 0; i < D / 2; ++i) {
      const double angle =
          position * std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(D));
      const R a = x[row * D + i], b = x[row * D + D / 2 + i];
      y[row * D + i] = a * std::cos(angle) - b * std::sin(angle);
      y[row * D + D / 2 + i] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
}

}  // namespace rodimus::reference
