// DDTS on the CPU: time and rate at two training shapes. items_per_second is multiply-adds x 2 of
// the chunked form, the causal halves of the 64 x 64 products counted as halves; compare it with
// gemm_peak, the rate of the in-cache micro-kernel.
//   ddts_bench --benchmark_filter=forward
#include <benchmark/benchmark.h>

#include <array>
#include <cmath>
#include <vector>

#include "kernels/cpu/microkernel.h"
#include "kernels/ddts.h"
#include "tests/support/random.h"

namespace rodimus {
namespace {

using testing::cast;
using testing::normal;

// Arguments: B, T, V, threads; K = 64.
template <class T>
class Problem {
 public:
  explicit Problem(const benchmark::State& state)
      : dims{state.range(0), state.range(1), 64, state.range(2)},
        exec{static_cast<int>(state.range(3))},
        q(cast<T>(normal(keys(), 1))),
        k(cast<T>(normal(keys(), 2, 0.1))),
        v(cast<T>(normal(values(), 3))),
        d_o(cast<T>(normal(values(), 4))),
        g(cast<float>(normal(keys(), 5, 0.1))),
        o(v.size()),
        dq(q.size()),
        dk(q.size()),
        dv(v.size()),
        dg(q.size()) {
    for (float& x : g) x = -std::abs(x);
  }

  int64_t keys() const { return dims.B * dims.T * dims.K; }
  int64_t values() const { return dims.B * dims.T * dims.V; }
  // Products of the chunked form that touch the value columns, per token and column, in units of 2
  // x 64 operations, and those that do not, per token, in units of 2 x 64 x 64.
  int64_t flops(double with_columns, double without) const {
    const double per_token = 128 * with_columns * static_cast<double>(dims.V) + 8192 * without;
    return static_cast<int64_t>(per_token * static_cast<double>(dims.B * dims.T));
  }

  DdtsDims dims;
  Cpu exec;
  std::vector<T> q, k, v, d_o;
  std::vector<float> g;
  std::vector<T> o, dq, dk, dv;
  std::vector<float> dg;
};

template <class T>
void forward(benchmark::State& state) {
  Problem<T> p(state);
  for (auto _ : state)
    ddts_forward<T>(p.exec, p.o.data(), nullptr, p.q.data(), p.k.data(), p.v.data(), p.g.data(),
                    nullptr, nullptr, p.dims);
  // scores v (half), q S, k^T v; scores (half).
  state.SetItemsProcessed(state.iterations() * p.flops(2.5, 0.5));
}

template <class T>
void backward(benchmark::State& state) {
  Problem<T> p(state);
  for (auto _ : state)
    ddts_backward<T>(p.exec, p.dq.data(), p.dk.data(), p.dv.data(), p.dg.data(), nullptr,
                     p.d_o.data(), nullptr, p.q.data(), p.k.data(), p.v.data(), p.g.data(), nullptr,
                     nullptr, p.dims);
  // S, dS, scores^T d_o (half), k dS, d_o v^T (half), d_o S^T, v dS^T; scores, dq, dk (halves).
  state.SetItemsProcessed(state.iterations() * p.flops(6, 1.5));
}

void gemm_peak(benchmark::State& state) {
  std::vector<float> a(64 * 128, 0.5f), b(128 * 80, 0.5f), c(64 * 80);
  for (auto _ : state) {
    micro::product<micro::ALayout::kRows>(c.data(), 80, a.data(), 128, b.data(), 80, 64, 64, 128,
                                          micro::Zero{});
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * 2 * 64 * 64 * 128);
}

void shapes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"B", "T", "V", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const int threads : {1, 2})
    for (const auto& [B, T, V] : {std::array{8, 512, 512}, {1, 2048, 1536}})
      benchmark->Args({B, T, V, threads});
}

BENCHMARK(gemm_peak);
BENCHMARK(forward<float>)->Apply(shapes);
BENCHMARK(backward<float>)->Apply(shapes);
BENCHMARK(forward<bf16>)->Apply(shapes);
BENCHMARK(backward<bf16>)->Apply(shapes);

}  // namespace
}  // namespace rodimus

BENCHMARK_MAIN();
