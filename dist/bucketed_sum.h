// The sum of the gradients over all ranks while backward still computes: backward makes them from
// the end of the flat buffer to its beginning, and what is final is summed in buckets.
#pragma once

#include "dist/communicator.h"

namespace rodimus {

// x[i] = sum over ranks of x[i], for i in [0, n). Every rank makes the same calls: the buckets
// follow from them, so a run repeats the bits of another on GPUs too (see make_nccl).
class BucketedSum {
 public:
  // 32 MiB: small against a block of a large model, large against what a collective costs to start
  // (PyTorch's DistributedDataParallel takes 25 MiB).
  static constexpr int64_t kBucket = int64_t{8} << 20;  // elements

  BucketedSum(Communicator& communicator, Exec& exec, float* x, int64_t n, int64_t bucket)
      : communicator_(communicator), exec_(exec), x_(x), final_(n), started_(n), bucket_(bucket) {}

  // The work that writes x[begin, n) is queued, and nothing later touches it. `begin` never grows.
  // Starts a sum when that makes a bucket full. Throws Error when `begin` is out of order.
  void final_from(int64_t begin);

  // All of x is queued. Work that is queued on the compute stream from here on finds the sums.
  void finish();

 private:
  void start();

  Communicator& communicator_;
  Exec& exec_;
  float* x_;
  int64_t final_, started_, bucket_;  // [final_, n) is final, the sum of [started_, n) is started
};

}  // namespace rodimus
