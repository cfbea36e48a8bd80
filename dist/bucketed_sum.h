// Sums the gradients over all ranks while backward is still computing: backward completes them from
// the end of the flat buffer to its beginning, and the final part is summed in buckets.
#pragma once

#include "dist/communicator.h"

namespace rodimus {

// x[i] = sum over ranks of x[i], for i in [0, n). Every rank makes the same calls, and these alone
// determine the buckets, so runs are bitwise repeatable on GPUs too (see make_nccl).
class BucketedSum {
 public:
  // 32 MiB: small compared with a block of a large model, large enough to hide the start-up cost of
  // a collective (PyTorch's DistributedDataParallel uses 25 MiB).
  static constexpr int64_t kBucket = int64_t{8} << 20;  // elements

  BucketedSum(Communicator& communicator, Exec& exec, float* x, int64_t n, int64_t bucket)
      : communicator_(communicator), exec_(exec), x_(x), final_(n), started_(n), bucket_(bucket) {}

  // Call it when all work that writes x[begin, n) is queued and nothing later touches that part.
  // `begin` never grows. Starts a sum once a bucket is full. Throws Error when `begin` is out of
  // order.
  void final_from(int64_t begin);

  // Call it when all of x is queued. Work queued on the compute stream after this call sees the
  // sums.
  void finish();

 private:
  void start();

  Communicator& communicator_;
  Exec& exec_;
  float* x_;
  int64_t final_, started_, bucket_;  // [final_, n) is final, the sum of [started_, n) has started
};

}  // namespace rodimus
