#include "kernels/timeline.h"

#include "kernels/cuda/runtime.h"

namespace rodimus {

Timeline::~Timeline() {
  for (CUevent_st* event : events_) (void)cudaEventDestroy(event);
}

void Timeline::mark() {
  if (marks_ == events_.size()) {
    cudaEvent_t event = nullptr;
    CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDefault));
    events_.push_back(event);
  }
  CUDA_CHECK(cudaEventRecord(events_[marks_], stream_));
  ++marks_;
}

std::vector<double> Timeline::read() {
  if (marks_ == 0) return {};
  CUDA_CHECK(cudaEventSynchronize(events_[marks_ - 1]));
  std::vector<double> seconds;
  for (size_t i = 1; i < marks_; ++i) {
    float ms = 0;
    CUDA_CHECK(cudaEventElapsedTime(&ms, events_[i - 1], events_[i]));
    seconds.push_back(static_cast<double>(ms) / 1000);
  }
  marks_ = 0;
  return seconds;
}

}  // namespace rodimus
