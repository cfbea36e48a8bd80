// The memory traffic of the GPU kernels, counted by the emulator: 32-byte sectors are used
// completely, and every array is moved once. For memory-bound kernels this is the part of
// performance that can be checked without a GPU. Race build only: there the emulator sees every
// access.
#include <gtest/gtest.h>

#include <functional>

#include "kernels/ddts_gates.h"
#include "kernels/gated_norm.h"
#include "kernels/short_conv.h"
#include "tests/simt/emulator.h"
#include "tests/support/device.h"
#include "tests/support/random.h"

namespace rodimus {
namespace {

using testing::Array;

template <class T>
Array<T> normal(int64_t n, uint64_t seed) {
  return testing::cast<T>(testing::normal(n, seed));
}

// Runs f, which returns an output to wait for; the result is the counts of its main kernel.
template <class F>
simt::Counters count(const char* kernel, const F& f) {
  simt::reset_counters();
  simt::config.count = true;
  (void)f().host();
  simt::config.count = false;
  simt::Counters found;
  for (const auto& [name, counters] : simt::kernel_counters()) {
    EXPECT_GE(counters.sector_efficiency(), 0.95) << name << '\n' << simt::counter_text();
    if (name.find(kernel) != std::string::npos) found = counters;
  }
  EXPECT_EQ(found.launches, 1u) << kernel << '\n' << simt::counter_text();
  return found;
}

template <class T>
class Traffic : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(Traffic, Types);

TYPED_TEST(Traffic, GatedNorm) {
  using T = TypeParam;
  const GatedNormDims dims{16, 256, 1e-5f};
  const int64_t n = dims.rows * dims.dim;
  const auto o = normal<T>(n, 1), c = normal<T>(n, 2), gate = normal<T>(n, 3), dy = normal<T>(n, 4);
  const auto skip = normal<float>(dims.dim, 5), w = normal<float>(dims.dim, 6);
  Array<T> y(n), d_o(n), dc(n), dgate(n);
  Array<float> rstd(dims.rows), dskip(dims.dim, 0.0f), dw(dims.dim, 0.0f);
  Cuda gpu = testing::backend();
  const auto forward = count("forward_kernel", [&] {
    gated_norm_forward<T>(gpu, {.dims = dims,
                                .o = o.data(),
                                .c = c.data(),
                                .skip_weight = skip.data(),
                                .gate = gate.data(),
                                .w = w.data(),
                                .y = y.data(),
                                .rstd = rstd.data()});
    return y;
  });
  const uint64_t array = n * sizeof(T), weights = 2 * dims.dim * sizeof(float);
  const uint64_t scales = dims.rows * sizeof(float);
  EXPECT_EQ(forward.load_bytes, 3 * array + forward.blocks * weights);
  EXPECT_EQ(forward.store_bytes, array + scales);
  const auto backward = count("backward_kernel", [&] {
    gated_norm_backward<T>(gpu, {.dims = dims,
                                 .o = o.data(),
                                 .c = c.data(),
                                 .skip_weight = skip.data(),
                                 .gate = gate.data(),
                                 .w = w.data(),
                                 .rstd = rstd.data(),
                                 .dy = dy.data(),
                                 .d_o = d_o.data(),
                                 .dc = dc.data(),
                                 .dgate = dgate.data(),
                                 .dskip_weight = dskip.data(),
                                 .dw = dw.data()});
    return d_o;
  });
  // Every thread reads the scale of the row.
  const uint64_t threads = backward.threads / backward.blocks;
  EXPECT_EQ(backward.load_bytes, 4 * array + threads * scales + backward.blocks * weights);
  EXPECT_EQ(backward.store_bytes, 3 * array + backward.blocks * weights);
}

TYPED_TEST(Traffic, DdtsGates) {
  using T = TypeParam;
  const DdtsGatesDims dims{64, 64, 1e-12f};
  const int64_t n = dims.rows * dims.m;
  const auto qk = normal<T>(2 * n, 1), gates = normal<T>(2 * n, 2), dq = normal<T>(n, 3),
             dk = normal<T>(n, 4);
  const auto bias = normal<float>(2 * dims.m, 5), dg = normal<float>(n, 6);
  Array<T> q(n), k(n), dqk(2 * n), dgates(2 * n);
  Array<float> g(n), dbias(2 * dims.m, 0.0f);
  Cuda gpu = testing::backend();
  const auto forward = count("forward_kernel", [&] {
    ddts_gates_forward<T>(gpu, {.dims = dims,
                                .qk = qk.data(),
                                .gates = gates.data(),
                                .bias = bias.data(),
                                .q = q.data(),
                                .k = k.data(),
                                .g = g.data()});
    return q;
  });
  const uint64_t array = n * sizeof(T), decays = n * sizeof(float);
  // Read by every row, from a cache.
  const uint64_t biases = dims.rows * 2 * dims.m * sizeof(float);
  EXPECT_EQ(forward.load_bytes, 4 * array + biases);
  EXPECT_EQ(forward.store_bytes, 2 * array + decays);
  const auto backward = count("backward_kernel", [&] {
    ddts_gates_backward<T>(gpu, {.dims = dims,
                                 .qk = qk.data(),
                                 .gates = gates.data(),
                                 .bias = bias.data(),
                                 .dq = dq.data(),
                                 .dk = dk.data(),
                                 .dg = dg.data(),
                                 .dqk = dqk.data(),
                                 .dgates = dgates.data(),
                                 .dbias = dbias.data()});
    return dqk;
  });
  // Of q and k, only k is read.
  EXPECT_EQ(backward.load_bytes, 5 * array + decays + biases);
  EXPECT_EQ(backward.store_bytes, 4 * array + backward.blocks * 2 * dims.m * sizeof(float));
}

TYPED_TEST(Traffic, ShortConv) {
  using T = TypeParam;
  const ShortConvDims dims{1, 64, 256, 4};
  const int64_t n = dims.B * dims.T * dims.D;
  const auto x = normal<T>(n, 1), dy = normal<T>(n, 2);
  const auto weight = normal<float>(dims.D * dims.width, 3), bias = normal<float>(dims.D, 4);
  const Array<int32_t> starts(dims.B * dims.T, 0);
  Array<T> y(n), dx(n);
  Array<float> dweight(dims.D * dims.width, 0.0f), dbias(dims.D, 0.0f);
  Cuda gpu = testing::backend();
  const auto forward = count("forward_kernel", [&] {
    short_conv_forward<T>(gpu, {.dims = dims,
                                .x = x.data(),
                                .weight = weight.data(),
                                .bias = bias.data(),
                                .starts = starts.data(),
                                .y = y.data()});
    return y;
  });
  // Besides x and y: three tokens before each chunk of 32, and what does not grow with T.
  const uint64_t array = n * sizeof(T), seam = 3 * dims.D * sizeof(T);
  const uint64_t filter = (dims.width + 1) * dims.D * sizeof(float);
  EXPECT_EQ(forward.store_bytes, array);
  EXPECT_LE(forward.unique_load_bytes, array + filter + dims.T * sizeof(int32_t));
  const auto starts_read = [&](int pack, int64_t tokens) -> uint64_t {
    return dims.D / pack * tokens * sizeof(int32_t);  // by each thread
  };
  EXPECT_EQ(forward.load_bytes, array + seam + 2 * filter + starts_read(16 / sizeof(T), dims.T));
  const auto backward = count("backward_kernel", [&] {
    short_conv_backward<T>(gpu, {.dims = dims,
                                 .x = x.data(),
                                 .weight = weight.data(),
                                 .bias = bias.data(),
                                 .starts = starts.data(),
                                 .dy = dy.data(),
                                 .dx = dx.data(),
                                 .dweight = dweight.data(),
                                 .dbias = dbias.data()});
    return dx;
  });
  EXPECT_EQ(backward.store_bytes, array + 2 * filter);
  EXPECT_EQ(backward.load_bytes, 2 * array + 3 * seam + 2 * filter + starts_read(4, dims.T + 3));
}

}  // namespace
}  // namespace rodimus
