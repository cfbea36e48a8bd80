// Attention for a handful of queries against many cached keys: bound by reading keys and values
// once.
#pragma once

#include "kernels/ska.h"

namespace rodimus::cpu::ska {

// Up to this many queries packing the keys into tiles costs more than it saves.
inline constexpr int64_t kDecodeQueries = 2;

// As ska_forward, with Tk filled in and the shapes checked.
template <class T>
void decode(Cpu&, T* o, float* lse, const T* q, const T* k, const T* v, const int32_t* starts,
            const SkaDims& dims);

}  // namespace rodimus::cpu::ska
