// The elementwise gates compared with the double reference and its complex-step gradient.
#include "kernels/gate.h"

#include <array>
#include <cmath>
#include <limits>

#include "kernels/reference/gate.h"
#include "tests/support/compare.h"
#include "tests/support/device.h"
#include "tests/support/gradient.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace rodimus {
namespace {

using testing::Array;
using testing::backend;
using testing::Backend;
using testing::cast;
using testing::close;
using testing::Complex;
using testing::complex_step;
using testing::ComplexVector;
using testing::in;
using testing::kDevice;
using testing::to_complex;
using testing::to_double;
using testing::tolerance;

template <class T>
class Gate : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(Gate, Types);

TYPED_TEST(Gate, SwiGlu) {
  using T = TypeParam;
  for (const int64_t n : {1, 7, 8, 33, 257}) {
    SCOPED_TRACE(n);
    const auto u = cast<T>(testing::normal(n, 1)), z = cast<T>(testing::normal(n, 2, 3)),
               dy = cast<T>(testing::normal(n, 3));
    const auto u64 = to_double(u), z64 = to_double(z), dy64 = to_double(dy);
    const auto loss = [&](const ComplexVector& uc, const ComplexVector& zc) {
      ComplexVector y(uc.size());
      reference::swiglu(y.data(), uc.data(), zc.data(), n);
      return testing::dot(y, dy64);
    };
    const auto uc = to_complex(u64), zc = to_complex(z64);
    std::vector<double> want(u.size());
    reference::swiglu(want.data(), u64.data(), z64.data(), n);
    Backend exec = backend(2);
    Array<T> y(n), du(n), dz(n);
    swiglu_forward(exec, y.data(), in(u).data(), in(z).data(), n);
    swiglu_backward(exec, du.data(), dz.data(), in(dy).data(), in(u).data(), in(z).data(), n);
    EXPECT_TRUE(close(to_double(y), want, tolerance<T>()));
    EXPECT_TRUE(
        close(to_double(du),
              complex_step(u64, [&](const ComplexVector& moved) { return loss(moved, zc); }),
              tolerance<T>()));
    EXPECT_TRUE(
        close(to_double(dz),
              complex_step(z64, [&](const ComplexVector& moved) { return loss(uc, moved); }),
              tolerance<T>()));
  }
}

TYPED_TEST(Gate, SwiGluOnManyElementsAndThreads) {
  using T = TypeParam;
  const int64_t n = kDevice == Device::cuda ? 7001 : 70001;  // the emulator is slow
  const auto u = cast<T>(testing::normal(n, 1)), z = cast<T>(testing::normal(n, 2, 3));
  const auto u64 = to_double(u), z64 = to_double(z);
  std::vector<double> want(u.size());
  reference::swiglu(want.data(), u64.data(), z64.data(), n);
  for (const int threads : {1, 2, 3}) {
    Backend exec = backend(threads);
    Array<T> y(n);
    swiglu_forward(exec, y.data(), in(u).data(), in(z).data(), n);
    EXPECT_TRUE(close(to_double(y), want, tolerance<T>()));
  }
}

TYPED_TEST(Gate, Sigmoid) {
  using T = TypeParam;
  for (const auto& [rows, dim] :
       {std::array<int64_t, 2>{1, 1}, {3, 7}, {5, 33}, {70, 9}, {64, 16}}) {
    SCOPED_TRACE(::testing::Message() << rows << " x " << dim);
    const int64_t n = rows * dim, d = dim, r = rows;
    const auto z = cast<T>(testing::normal(n, 1, 3)), x = cast<T>(testing::normal(n, 2)),
               dy = cast<T>(testing::normal(n, 3));
    const auto bias = cast<float>(testing::normal(dim, 4));
    const auto z64 = to_double(z), x64 = to_double(x), b64 = to_double(bias), dy64 = to_double(dy);
    const auto loss = [&](const ComplexVector& zc, const ComplexVector& bc,
                          const ComplexVector& xc) {
      ComplexVector y(zc.size());
      reference::sigmoid_gate(y.data(), zc.data(), bc.data(), xc.data(), r, d);
      return testing::dot(y, dy64);
    };
    const auto zc = to_complex(z64), bc = to_complex(b64), xc = to_complex(x64);
    std::vector<double> want(z.size());
    reference::sigmoid_gate(want.data(), z64.data(), b64.data(), x64.data(), rows, dim);
    const auto want_dz =
        complex_step(z64, [&](const ComplexVector& moved) { return loss(moved, bc, xc); });
    const auto want_dx =
        complex_step(x64, [&](const ComplexVector& moved) { return loss(zc, bc, moved); });
    auto want_db =
        complex_step(b64, [&](const ComplexVector& moved) { return loss(zc, moved, xc); });
    for (double& value : want_db) value += 0.5;
    Backend exec = backend(2);
    Array<T> y(n), dz(n), dx(n);
    Array<float> dbias(dim, 0.5f);
    sigmoid_gate_forward<T>(exec, {.rows = rows,
                                   .dim = dim,
                                   .z = in(z).data(),
                                   .x = in(x).data(),
                                   .bias = in(bias).data(),
                                   .y = y.data()});
    sigmoid_gate_backward<T>(exec, {.rows = rows,
                                    .dim = dim,
                                    .z = in(z).data(),
                                    .x = in(x).data(),
                                    .bias = in(bias).data(),
                                    .dy = in(dy).data(),
                                    .dz = dz.data(),
                                    .dx = dx.data(),
                                    .dbias = dbias.data()});
    EXPECT_TRUE(close(to_double(y), want, tolerance<T>()));
    EXPECT_TRUE(close(to_double(dz), want_dz, tolerance<T>()));
    EXPECT_TRUE(close(to_double(dx), want_dx, tolerance<T>()));
    EXPECT_TRUE(close(to_double(dbias), want_db, tolerance<float>(4 * rows)));
  }
}

TYPED_TEST(Gate, SameBitsOnAnyNumberOfThreads) {
  using T = TypeParam;
  const int64_t rows = kDevice == Device::cuda ? 99 : 999, dim = 65, n = rows * dim;
  const auto z = cast<T>(testing::normal(n, 1)), x = cast<T>(testing::normal(n, 2)),
             dy = cast<T>(testing::normal(n, 3));
  const std::vector<float> bias(static_cast<size_t>(dim), 0.25f);
  std::vector<std::vector<float>> dbias;
  for (const int threads : {1, 2, 3}) {
    Backend exec = backend(threads);
    Array<T> dz(n), dx(n);
    Array<float> sum(dim, 0.0f);
    sigmoid_gate_backward<T>(exec, {.rows = rows,
                                    .dim = dim,
                                    .z = in(z).data(),
                                    .x = in(x).data(),
                                    .bias = in(bias).data(),
                                    .dy = in(dy).data(),
                                    .dz = dz.data(),
                                    .dx = dx.data(),
                                    .dbias = sum.data()});
    dbias.push_back(sum.host());
  }
  EXPECT_EQ(dbias[0], dbias[1]);
  EXPECT_EQ(dbias[0], dbias[2]);
}

TYPED_TEST(Gate, ExtremesAndNan) {
  using T = TypeParam;
  const auto z = cast<T>(std::vector<double>{-1000, 1000, -100, 100, NAN, 0});
  const auto x = cast<T>(std::vector<double>{2, 2, 2, 2, 2, NAN});
  const std::vector<double> silu = {0, 1000, 0, 100}, sigmoid = {0, 1, 0, 1};
  Backend exec = backend();
  Array<T> y_device(6);
  std::vector<T> y;
  const auto check = [&](const std::vector<double>& gate) {
    for (size_t i = 0; i < 4; ++i)
      EXPECT_EQ(to_f32(y[i]), to_f32(T(static_cast<float>(2 * gate[i]))));
    EXPECT_TRUE(std::isnan(to_f32(y[4])));
    EXPECT_TRUE(std::isnan(to_f32(y[5])));
  };
  // Exact, except that 1 + e^-100 = 1 in f32 and products below 1e-37 vanish.
  swiglu_forward(exec, y_device.data(), in(x).data(), in(z).data(), 6);
  y = y_device.host();
  for (auto& value : y)
    if (std::abs(to_f32(value)) < 1e-37f) value = T(0.0f);
  check(silu);
  const std::vector<float> bias(6, 0.0f);
  sigmoid_gate_forward<T>(exec, {.rows = 1,
                                 .dim = 6,
                                 .z = in(z).data(),
                                 .x = in(x).data(),
                                 .bias = in(bias).data(),
                                 .y = y_device.data()});
  y = y_device.host();
  for (auto& value : y)
    if (std::abs(to_f32(value)) < 1e-37f) value = T(0.0f);
  check(sigmoid);
}

}  // namespace
}  // namespace rodimus
