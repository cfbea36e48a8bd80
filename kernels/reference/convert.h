// The whole-array passes, element by element. Tests only.
#pragma once

#include <cstdint>

namespace rodimus::reference {

template <class To, class From>
void convert(To* y, const From* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = To(static_cast<float>(x[i]));
}

template <class T>
void accumulate(T* y, const T* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = T(static_cast<float>(y[i]) + static_cast<float>(x[i]));
}

}  // namespace rodimus::reference
