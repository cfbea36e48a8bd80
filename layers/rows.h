// Copies rows of state that layers carry from call to call.
#pragma once

#include "autograd/tape.h"
#include "autograd/tensor.h"
#include "kernels/memory.h"

namespace rodimus {

// Copies rows [from_row, from_row + rows) of `from` to rows [to_row, to_row + rows) of `to`.
inline void copy_rows(Context& ctx, Tensor& to, int64_t to_row, const Tensor& from,
                      int64_t from_row, int64_t rows) {
  if (rows == 0) return;
  Tensor destination = to.rows(to_row, to_row + rows);
  const Tensor source = from.rows(from_row, from_row + rows);
  on_device(ctx.exec, [&](auto& exec) {
    memory::copy(exec, destination.raw(), source.raw(), source.bytes());
  });
}

}  // namespace rodimus
