// Batches for one rank, prepared ahead by a thread. A step of all ranks takes the next G samples of
// the global order; rank r takes the r-th of world_size equal, contiguous parts, as micro-batches
// in ascending order. The whole state is one integer, the number of samples taken so far, and a run
// can continue with another world size or micro-batch and still see the same steps.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "data/dataset.h"
#include "data/sampler.h"

namespace rodimus {

struct LoaderConfig {
  int64_t global_batch = 1;      // G, samples per step over all ranks
  int64_t micro_batch = 1;       // B, samples per forward pass of one rank
  int rank = 0, world_size = 1;  // G must be a multiple of world_size * B
  uint64_t seed = 0;
  bool shuffle = true;
  bool document_starts = false;  // fill Batch::starts
  int64_t prefetch = 4;          // micro-batches prepared ahead
};

struct Batch {
  int64_t B = 0, T = 0;
  std::vector<int32_t> inputs, targets;  // (B,T) each; targets[b,t] = inputs[b,t+1]
  std::vector<int32_t> starts;           // (B,T), see Dataset::read(); empty unless document_starts
  uint64_t first_sample = 0;             // global index of row 0; row b is first_sample + b
};

class Loader {
 public:
  // `dataset` must outlive the loader. Throws Error when the sizes do not divide.
  Loader(const Dataset& dataset, LoaderConfig config);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // The next micro-batch; rethrows errors of the thread. Not thread-safe.
  Batch next();

  int64_t micro_batches_per_step() const { return micro_batches_; }
  // The state: the first sample of the first step that has not been handed out completely,
  // regardless of prefetching. A step that was only partly taken counts as not taken.
  uint64_t position() const { return position_; }
  // Continues at `sample`, a value of position(), possibly from a loader with another G.
  void seek(uint64_t sample);

 private:
  Batch load(uint64_t first_of_step, int64_t micro_batch) const;
  void prefetch(uint64_t first_of_step);
  void start();
  void stop();

  const Dataset& dataset_;
  const LoaderConfig config_;
  const Sampler sampler_;
  int64_t micro_batches_ = 0;

  // Owned by the caller's thread.
  uint64_t position_ = 0;
  int64_t taken_ = 0;  // micro-batches of the step at position_ that were handed out

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> ready_;       // guarded by mutex_
  std::exception_ptr exception_;  // guarded by mutex_
  bool stopping_ = false;         // guarded by mutex_
  std::thread thread_;
};

}  // namespace rodimus
