// The allocator's rules, and the workspaces that parallel loops use because of them.
#include "kernels/memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/parallel.h"

namespace rodimus {

using namespace cpu;
namespace {

TEST(Memory, MoreThanThereIsIsAnError) {
  try {
    memory::allocate(size_t{1} << 62);
    FAIL() << "2^62 bytes were allocated";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("out of memory: asked for 4611686018427387904 bytes"), std::string::npos)
        << text;
  }
  EXPECT_NO_THROW(memory::allocate(1));  // the failure did no harm
}

// An empty vector has no address, and memmove must not be called with it even though nothing would
// be moved: only the UndefinedBehaviorSanitizer build notices.
TEST(Memory, ACopyOfNothingNeedsNoAddress) {
  Cpu cpu{1};
  memory::copy(cpu, nullptr, nullptr, 0);
  memory::upload(cpu, nullptr, nullptr, 0);
  memory::download(cpu, nullptr, nullptr, 0);
}

// All multi-threaded kernel tests rely on this to detect workspace allocated in the wrong place.
TEST(MemoryDeathTest, NothingIsAllocatedInsideAParallelRegion) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  // Only one of the two tasks throws: of two simultaneous errors only part of the first would be
  // printed.
  const auto one = [](int64_t task) {
    if (task == 1) (void)memory::allocate(1);
  };
  EXPECT_DEATH(parallel_tasks(Cpu{2}, 2, one), "inside a parallel region");
  // A loop of one thread opens no region.
  parallel_tasks(Cpu{1}, 2, [](int64_t) { (void)memory::allocate(1); });
}

TEST(PerThread, PartsAreDisjointAndShareNoCacheLine) {
  for (const int threads : {1, 2, 3}) {
    for (const int64_t count : {0, 1, 31, 32, 33}) {
      const Cpu exec{threads};
      const PerThread<float> workspace(exec, count);
      std::vector<float*> parts(static_cast<size_t>(threads));
#pragma omp parallel num_threads(threads)
      {
        float* mine = workspace.mine();
        parts[static_cast<size_t>(omp_get_thread_num())] = mine;
        std::fill_n(mine, count, static_cast<float>(omp_get_thread_num()));
      }
      for (int t = 0; t < threads; ++t) {
        const float* mine = parts[static_cast<size_t>(t)];
        for (int64_t i = 0; i < count; ++i) EXPECT_EQ(mine[i], static_cast<float>(t));
        EXPECT_EQ(reinterpret_cast<uintptr_t>(mine) % 64, 0u);
        if (t > 0 && count > 0) {
          EXPECT_GE(mine - parts[static_cast<size_t>(t - 1)], 32);
        }
      }
    }
  }
}

// With one thread, mine() is the first part even inside another parallel region.
TEST(PerThread, OneThreadInsideAnotherRegion) {
  const PerThread<float> workspace(Cpu{1}, 4);
  float* const first = workspace.mine();
  int64_t others = 0;
#pragma omp parallel num_threads(3) reduction(+ : others)
  others += workspace.mine() != first;
  EXPECT_EQ(others, 0);
}

}  // namespace
}  // namespace rodimus
