#include "dist/bucketed_sum.h"

namespace rodimus {

void BucketedSum::final_from(int64_t begin) {
  CHECK(0 <= begin && begin <= final_, "BucketedSum: final from ", begin, " after ", final_);
  final_ = begin;
  if (started_ - final_ >= bucket_) start();
}

void BucketedSum::finish() {
  final_from(0);
  start();
  communicator_.finish_sums(exec_);
}

void BucketedSum::start() {
  communicator_.start_sum(exec_, x_ + final_, started_ - final_);
  started_ = final_;
}

}  // namespace rodimus
