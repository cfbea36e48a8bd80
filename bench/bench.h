// Shared by the suites of this folder: the shapes of the presets, inputs, and a loop that measures
// the kernel and the machine's limit alternately. Each benchmark reports `rate` (GB/s, counting the
// minimum: every operand read once, every result written once; or GFLOP/s), `limit` (triad
// bandwidth, or the rate of a large f32 matrix product, on the same number of threads) and their
// quotient `percent`. Both rates are those of the fastest tenth of the runs, because disturbances
// only add time.
//   short_conv_bench --benchmark_filter=forward/f32
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/gemm.h"
#include "kernels/memory.h"
#include "tests/support/random.h"

namespace rodimus::bench {

// The presets of configs/, m = 64. Heads have d / heads dimensions; the FFN has 4/3 d.
struct Shape {
  const char* name;
  int64_t B, T, d, heads, window, vocab;
  int64_t rows() const { return B * T; }
  int64_t inner() const { return 2 * d; }
  int64_t ffn() const { return (d * 4 / 3 + 7) / 8 * 8; }
};
inline constexpr int64_t kMemory = 64;
inline constexpr Shape kPresets[] = {{"small", 8, 512, 256, 4, 256, 8192},
                                     {"base", 4, 1024, 512, 4, 512, 16384},
                                     {"125m", 1, 2048, 768, 6, 1024, 32000}};

template <class T>
using Array = memory::Scratch<T>;

template <class T>
Array<T> filled(int64_t n, float value = 0) {
  Array<T> x(n);
  std::fill_n(x.data(), n, T(value));
  return x;
}

// Normal numbers; a prime number of them is repeated, because drawing is slow.
template <class T>
Array<T> normal(int64_t n, uint64_t seed, double scale = 1) {
  const auto some = testing::cast<T>(testing::normal(std::min<int64_t>(n, 65521), seed, scale));
  Array<T> x(n);
  for (int64_t i = 0; i < n; ++i) x[i] = some[static_cast<size_t>(i) % some.size()];
  return x;
}

enum class Limit : uint8_t { kBandwidth, kProduct };

// One run of a kernel, and its work in bytes or FLOP. The closure owns its operands.
struct Work {
  double amount;
  std::function<void()> run;
};

// a = b + s c over 768 MiB: stacked caches hold hundreds of MiB, and a virtual machine does not see
// their full size. A triad over 96 MiB ran twice as fast if its arrays were still in such a cache.
inline Work triad(Cpu exec) {
  constexpr int64_t n = int64_t{64} << 20;
  static const Array<float> a = filled<float>(n), b = filled<float>(n, 1), c = filled<float>(n, 2);
  return {12.0 * n, [exec] {
            cpu::parallel_for(exec, n, cpu::kParallelGrain, [](int64_t begin, int64_t end) {
              float* const sum = a.data();
              const float *const x = b.data(), *const y = c.data();
#pragma omp simd
              for (int64_t i = begin; i < end; ++i) sum[i] = x[i] + 0.5f * y[i];
            });
          }};
}

inline Work product(Cpu exec) {
  constexpr int64_t n = 1024;
  static const Array<float> a = normal<float>(n * n, 1), b = normal<float>(n * n, 2),
                            c = filled<float>(n * n);
  return {2.0 * n * n * n, [exec]() mutable {
            gemm(exec, {.m = n, .n = n, .k = n, .transpose_b = true}, c.data(), a.data(), b.data(),
                 0.0f);
          }};
}

inline double seconds(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

inline double fastest_tenth(std::vector<double> x) {
  const auto tenth = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 10);
  std::nth_element(x.begin(), tenth, x.end());
  return *tenth;
}

// The triad before every run also flushes the cache; products get as much time as the kernel.
inline void measure(benchmark::State& state, Limit kind, const Work& work, Cpu exec) {
  const Work limit = kind == Limit::kBandwidth ? triad(exec) : product(exec);
  limit.run();
  work.run();
  std::vector<double> times, limit_times;
  double total = 0, limit_total = 0;
  for (auto _ : state) {
    if (kind == Limit::kBandwidth || limit_total <= total) {
      limit_times.push_back(seconds(limit.run));
      limit_total += limit_times.back();
    }
    times.push_back(seconds(work.run));
    total += times.back();
    state.SetIterationTime(times.back());
  }
  const double rate = work.amount / fastest_tenth(times),
               most = limit.amount / fastest_tenth(limit_times);
  state.counters["rate"] = rate * 1e-9;
  state.counters["limit"] = most * 1e-9;
  state.counters["percent"] = 100 * rate / most;
}

// Registers NAME/PRESET/threads:N; make(shape, exec) gives the Work.
template <class Make>
void add(const std::string& name, Limit limit, Make make,
         std::span<const Shape> shapes = kPresets) {
  for (const Shape& shape : shapes) {
    for (const int threads : {1, 2}) {
      const std::string full = name + "/" + shape.name + "/threads:" + std::to_string(threads);
      const auto body = [limit, make, shape, threads](benchmark::State& state) {
        const Cpu exec{threads};
        measure(state, limit, make(shape, exec), exec);
      };
      benchmark::RegisterBenchmark(full.c_str(), body)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond)
          ->MinTime(0.2);
    }
  }
}

// The same in both types: make is a lambda []<class T>(std::type_identity<T>, shape, exec).
template <class Make>
void add_types(const std::string& name, Limit limit, Make make,
               std::span<const Shape> shapes = kPresets) {
  const auto of_type = [&](const char* suffix, auto type) {
    const auto typed = [=](const Shape& shape, Cpu exec) { return make(type, shape, exec); };
    add(name + suffix, limit, typed, shapes);
  };
  of_type("/f32", std::type_identity<float>{});
  of_type("/bf16", std::type_identity<bf16>{});
}

}  // namespace rodimus::bench

// main() of a suite; register_all() registers its benchmarks.
#define RODIMUS_BENCH_MAIN(register_all)                              \
  int main(int argc, char** argv) {                                   \
    benchmark::Initialize(&argc, argv);                               \
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1; \
    register_all();                                                   \
    benchmark::RunSpecifiedBenchmarks();                              \
    benchmark::Shutdown();                                            \
  }
