// Times on a GPU, taken by the GPU itself.
#pragma once

#include <vector>

#include "kernels/exec.h"

struct CUevent_st;  // *cudaEvent_t

namespace rodimus {

// Moments in the work queued on a GPU. The host does not wait at a mark; it waits once, when the
// times are read.
class Timeline {
 public:
  explicit Timeline(const Cuda& gpu) : stream_(gpu.stream) {}
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  // A moment when all work queued so far is done, and no later work has begun.
  void mark();
  // Waits for the last mark. Returns the seconds from each mark to the next, and forgets them.
  // Throws Error when the work failed.
  std::vector<double> read();

 private:
  CUstream_st* stream_;
  std::vector<CUevent_st*> events_;  // kept from one read() to the next
  size_t marks_ = 0;
};

}  // namespace rodimus
