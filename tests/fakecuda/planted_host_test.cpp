// The fake runtime's own proof: host code with one wait missing is caught, and the same code with
// all of them is right under every policy. The host code is a training step in small: batches go
// through a pinned buffer, a second stream adds what other ranks would send, the result comes back
// to the host.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "kernels/convert.h"
#include "kernels/cuda/runtime.h"
#include "kernels/device.h"
#include "kernels/memory.h"
#include "tests/fakecuda/work.h"
#include "tests/simt/emulator.h"

namespace rodimus {
namespace {

using fakecuda::Policy;

enum class Fault {
  none,
  gradient_not_awaited,  // by the sum on the other stream
  sum_not_awaited,       // by the update on the first stream
  copy_not_awaited,      // by the host, which reads the buffer
  pinned_reused,         // while the copy of the batch before it may still be under way
  freed_in_use,          // in the order of the first stream, while the other one reads it
};
constexpr Fault kFaults[] = {Fault::gradient_not_awaited, Fault::sum_not_awaited,
                             Fault::copy_not_awaited, Fault::pinned_reused, Fault::freed_in_use};
const char* name_of(Fault fault) {
  constexpr const char* kNames[] = {
      "none",          "gradient_not_awaited", "sum_not_awaited", "copy_not_awaited",
      "pinned_reused", "freed_in_use"};
  return kNames[static_cast<size_t>(fault)];
}

// More than two pages, so at least one whole: freed memory loses its content by the page.
constexpr int64_t kSize = 2101;
constexpr int64_t kBytes = kSize * static_cast<int64_t>(sizeof(float));
constexpr int kSteps = 4;
constexpr float kFromOthers = 100;

float batch_value(int step, int64_t i) { return static_cast<float>(1000 * step + i % 7); }
// Small whole numbers, so the sums are exact.
float weight_after(int step, int64_t i) {
  float sum = 0;
  for (int s = 0; s <= step; ++s) sum += batch_value(s, i) + kFromOthers;
  return sum;
}

class Pinned {
 public:
  Pinned() {
    void* memory = nullptr;
    CUDA_CHECK(cudaHostAlloc(&memory, kBytes, cudaHostAllocDefault));
    data_ = static_cast<float*>(memory);
  }
  ~Pinned() { (void)cudaFreeHost(data_); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  float* data() const { return data_; }

 private:
  float* data_ = nullptr;
};

class Event {
 public:
  Event() { CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Event() { (void)cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) const { CUDA_CHECK(cudaEventRecord(event_, stream)); }
  void delay(cudaStream_t stream) const { CUDA_CHECK(cudaStreamWaitEvent(stream, event_, 0)); }
  void wait() const { CUDA_CHECK(cudaEventSynchronize(event_)); }

 private:
  cudaEvent_t event_ = nullptr;
};

// Elements that are wrong. With read_each_step the host looks at the weights after every step, else
// after the last: only then do several steps lie in the queue.
int64_t train(Fault fault, bool read_each_step) {
  Cuda gpu = open_gpu(0), other = gpu;
  CUDA_CHECK(cudaStreamCreateWithFlags(&other.stream, cudaStreamNonBlocking));
  const memory::Scratch<float> batch(kSize, Device::cuda), gradient(kSize, Device::cuda),
      weights(kSize, Device::cuda);
  const Pinned to_device, to_host;
  const Event copied, ready, summed;
  int64_t wrong = 0;
  const auto compare = [&](int step) {
    for (int64_t i = 0; i < kSize; ++i) wrong += !(to_host.data()[i] == weight_after(step, i));
  };

  fill(gpu, weights.data(), 0, kSize);
  for (int step = 0; step < kSteps; ++step) {
    if (step > 0 && fault != Fault::pinned_reused) copied.wait();
    for (int64_t i = 0; i < kSize; ++i) to_device.data()[i] = batch_value(step, i);
    CUDA_CHECK(cudaMemcpyAsync(batch.data(), to_device.data(), kBytes, cudaMemcpyHostToDevice,
                               gpu.stream));
    copied.record(gpu.stream);
    fill(gpu, gradient.data(), 0, kSize);
    accumulate(gpu, gradient.data(), batch.data(), kSize);
    auto received = std::make_unique<memory::Scratch<float>>(kSize, Device::cuda);
    fill(gpu, received->data(), kFromOthers, kSize);

    ready.record(gpu.stream);
    if (fault != Fault::gradient_not_awaited) ready.delay(other.stream);
    accumulate(other, gradient.data(), received->data(), kSize);
    summed.record(other.stream);
    if (fault == Fault::freed_in_use) received.reset();
    if (fault != Fault::sum_not_awaited) summed.delay(gpu.stream);

    accumulate(gpu, weights.data(), gradient.data(), kSize);
    received.reset();
    CUDA_CHECK(cudaMemcpyAsync(to_host.data(), weights.data(), kBytes, cudaMemcpyDeviceToHost,
                               gpu.stream));
    if (!read_each_step) continue;
    if (fault != Fault::copy_not_awaited) wait(gpu);
    compare(step);
  }
  if (!read_each_step) {
    if (fault != Fault::copy_not_awaited) wait(gpu);
    compare(kSteps - 1);
  }
  fakecuda::finish_all();  // what nobody waited for
  CUDA_CHECK(cudaStreamDestroy(other.stream));
  return wrong;
}

// Whether the run told of the fault: by a wrong result, or by a report.
bool caught(Policy policy, uint64_t seed, Fault fault, bool read_each_step) {
  fakecuda::set_policy(policy, seed);
  simt::clear_reports();
  const int64_t wrong = train(fault, read_each_step);
  const bool reported = !simt::reports().empty();
  simt::clear_reports();
  return wrong > 0 || reported;
}

constexpr uint64_t kSeeds = 8;

class PlantedHost : public ::testing::Test {
 protected:
  void SetUp() override { simt::config = {}; }
};

TEST_F(PlantedHost, TheRightOrderIsRightUnderEveryPolicy) {
  for (const bool read_each_step : {true, false}) {
    EXPECT_FALSE(caught(Policy::lazy, 1, Fault::none, read_each_step));
    EXPECT_FALSE(caught(Policy::eager, 1, Fault::none, read_each_step));
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      EXPECT_FALSE(caught(Policy::random, seed, Fault::none, read_each_step)) << "seed " << seed;
    }
  }
}

TEST_F(PlantedHost, LazyCatchesEveryFault) {
  for (const Fault fault : kFaults) {
    EXPECT_TRUE(caught(Policy::lazy, 1, fault, /*read_each_step=*/false)) << name_of(fault);
  }
}

// A fault may hide under one seed.
TEST_F(PlantedHost, RandomCatchesEveryFaultUnderSomeSeed) {
  for (const Fault fault : kFaults) {
    bool found = false;
    for (uint64_t seed = 1; seed <= kSeeds && !found; ++seed) {
      found = caught(Policy::random, seed, fault, /*read_each_step=*/false);
    }
    EXPECT_TRUE(found) << name_of(fault);
  }
}

// Why eager is never the only policy.
TEST_F(PlantedHost, EagerCatchesNone) {
  for (const Fault fault : kFaults) {
    EXPECT_FALSE(caught(Policy::eager, 1, fault, /*read_each_step=*/false)) << name_of(fault);
  }
}

}  // namespace
}  // namespace rodimus
