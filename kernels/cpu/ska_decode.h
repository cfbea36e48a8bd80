// Attention of a handful of queries over many cached keys: bound by reading keys and values once.
#pragma once

#include "kernels/ska.h"

namespace rodimus::cpu::ska {

// Up to this many queries, packing the keys into tiles costs more than it saves.
inline constexpr int64_t kDecodeQueries = 2;

// As ska_forward; `dims` are those of args, checked and with Tk filled in.
template <class T>
void decode(Cpu&, const SkaForwardArgs<T>& args, const SkaDims& dims);
ScratchBytes decode_scratch(const Cpu&, const SkaDims& dims);

}  // namespace rodimus::cpu::ska
