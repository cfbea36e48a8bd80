// What a micro-batch must do, op by op, from the shape of the model alone: nothing is allocated, so
// that models of any size can be planned on any machine.
#pragma once

#include <vector>

#include "autograd/profile.h"
#include "kernels/dtype.h"
#include "layers/config.h"

namespace rodimus {

struct OpCost {
  Op op;  // costs of one call
  int64_t calls = 0;
  int64_t again = 0;  // calls whose forward recomputation runs once more
};

// Forward and backward of B sequences of T tokens, as the ops of autograd/ state their costs
// (tests/layers/costs_test.cpp runs them and compares): FLOPs of matrix products, and bytes when
// every operand is read or written once. Sums of gradients that reach one slot from several ops are
// not counted: they can be fused into what writes them.
std::vector<OpCost> micro_batch_costs(const ModelConfig& config, DType compute, int64_t B,
                                      int64_t T);

}  // namespace rodimus
