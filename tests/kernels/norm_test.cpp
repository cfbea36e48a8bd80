// Residual + RMS norm compared with the double reference and its complex-step gradient.
#include "kernels/norm.h"

#include <array>
#include <cmath>
#include <limits>

#include "kernels/reference/norm.h"
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
using testing::to_double;
using testing::tolerance;

constexpr float kEps = 1e-5f;

template <class T>
struct Problem {
  int64_t rows, dim;
  std::vector<float> x, ds, w;
  std::vector<T> branch, dy;

  Problem(int64_t rows_, int64_t dim_)
      : rows(rows_),
        dim(dim_),
        x(cast<float>(testing::normal(rows * dim, 1, 3))),
        ds(cast<float>(testing::normal(rows * dim, 2))),
        w(cast<float>(testing::uniform(dim, 3, 0.5, 1.5))),
        branch(cast<T>(testing::normal(rows * dim, 4))),
        dy(cast<T>(testing::normal(rows * dim, 5))) {}
};

struct Forward {
  std::vector<double> s, y, rstd;
};

template <class T>
Forward reference_forward(const Problem<T>& p, bool with_branch) {
  Forward f{std::vector<double>(p.x.size()), std::vector<double>(p.x.size()),
            std::vector<double>(static_cast<size_t>(p.rows))};
  const auto x = to_double(p.x), branch = to_double(p.branch), w = to_double(p.w);
  reference::residual_norm(f.s.data(), f.y.data(), f.rstd.data(), x.data(),
                           with_branch ? branch.data() : nullptr, w.data(), p.rows, p.dim, kEps);
  return f;
}

template <class T>
void check_forward(int64_t rows, int64_t dim, bool with_branch, int threads) {
  SCOPED_TRACE(::testing::Message() << rows << " x " << dim << " branch " << with_branch);
  const Problem<T> p(rows, dim);
  const Forward want = reference_forward(p, with_branch);
  Backend exec = backend(threads);
  Array<float> s(p.x), rstd(rows);  // in place
  Array<T> y(rows * dim);
  residual_norm_forward<T>(exec, {.rows = rows,
                                  .dim = dim,
                                  .eps = kEps,
                                  .x = s.data(),
                                  .branch = with_branch ? in(p.branch).data() : nullptr,
                                  .w = in(p.w).data(),
                                  .s = with_branch ? s.data() : nullptr,
                                  .y = y.data(),
                                  .rstd = rstd.data()});
  if (with_branch) {
    EXPECT_TRUE(close(to_double(s), want.s, epsilon_of(DType::f32)));
  }
  EXPECT_TRUE(close(to_double(rstd), want.rstd, tolerance<float>(dim)));
  EXPECT_TRUE(close(to_double(y), want.y, tolerance<T>(dim)));
}

template <class T>
class Norm : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(Norm, Types);

TYPED_TEST(Norm, ForwardMatchesReference) {
  for (const int64_t rows : {1, 3, 64})
    for (const int64_t dim : {1, 7, 8, 31, 33, 1000})
      for (const bool with_branch : {false, true})
        for (const int threads : testing::thread_counts({1, 2}))
          check_forward<TypeParam>(rows, dim, with_branch, threads);
}

struct Gradients {
  std::vector<double> dx, dw;
};

// The gradient of sum(dy y) + sum(ds s) with respect to x and w.
template <class T>
Gradients reference_backward(const Problem<T>& p, bool with_ds) {
  const auto dy = to_double(p.dy), ds = to_double(p.ds);
  const auto s_value = reference_forward(p, true).s;
  const auto loss = [&](const ComplexVector& x, const ComplexVector& w) {
    ComplexVector s(x.size()), y(x.size()), rstd(static_cast<size_t>(p.rows));
    reference::residual_norm<Complex>(s.data(), y.data(), rstd.data(), x.data(), nullptr, w.data(),
                                      p.rows, p.dim, kEps);
    return testing::dot(y, dy) + (with_ds ? testing::dot(s, ds) : Complex(0));
  };
  const auto s_complex = testing::to_complex(s_value),
             w_complex = testing::to_complex(to_double(p.w));
  return {complex_step(s_value, [&](const ComplexVector& x) { return loss(x, w_complex); }),
          complex_step(to_double(p.w), [&](const ComplexVector& w) { return loss(s_complex, w); })};
}

template <class T>
void check_backward(int64_t rows, int64_t dim, bool with_ds, bool with_dbranch, float beta) {
  SCOPED_TRACE(::testing::Message()
               << rows << " x " << dim << " ds " << with_ds << " beta " << beta);
  const Problem<T> p(rows, dim);
  const Gradients want = reference_backward(p, with_ds);
  Backend exec = backend(2);
  Array<float> s(rows * dim), rstd(rows);
  Array<T> y(rows * dim), dbranch(rows * dim);
  residual_norm_forward<T>(exec, {.rows = rows,
                                  .dim = dim,
                                  .eps = kEps,
                                  .x = in(p.x).data(),
                                  .branch = in(p.branch).data(),
                                  .w = in(p.w).data(),
                                  .s = s.data(),
                                  .y = y.data(),
                                  .rstd = rstd.data()});
  // beta = 0 must not read dx; with ds, dx is ds itself (in place).
  Array<float> dx(rows * dim, std::numeric_limits<float>::quiet_NaN());
  const Array<float> separate_ds(p.ds);
  const std::vector<float> before = cast<float>(testing::normal(rows * dim, 9));
  if (beta == 1) dx.set(before);
  if (with_ds && beta == 0) dx.set(p.ds);
  const float* ds = !with_ds ? nullptr : beta == 0 ? dx.data() : separate_ds.data();
  Array<float> dw(dim, 0.25f);
  residual_norm_backward<T>(exec, {.rows = rows,
                                   .dim = dim,
                                   .beta = beta,
                                   .s = s.data(),
                                   .w = in(p.w).data(),
                                   .rstd = rstd.data(),
                                   .dy = in(p.dy).data(),
                                   .ds = ds,
                                   .dx = dx.data(),
                                   .dbranch = with_dbranch ? dbranch.data() : nullptr,
                                   .dw = dw.data()});
  std::vector<double> want_dx = want.dx, want_dw = want.dw;
  for (double& value : want_dw) value += 0.25;
  if (beta == 1)
    for (size_t i = 0; i < want_dx.size(); ++i) want_dx[i] += before[i];
  EXPECT_TRUE(close(to_double(dx), want_dx, tolerance<float>(dim)));
  if (with_dbranch) {
    EXPECT_TRUE(close(to_double(dbranch), want.dx, tolerance<T>(dim)));
  }
  EXPECT_TRUE(close(to_double(dw), want_dw, 4 * tolerance<float>(rows)));
}

TYPED_TEST(Norm, BackwardMatchesComplexStep) {
  for (const auto& [rows, dim] : {std::array<int64_t, 2>{1, 5}, {3, 7}, {5, 33}, {70, 17}})
    for (const bool with_ds : {false, true})
      for (const float beta : {0.0f, 1.0f})
        for (const bool with_dbranch : {false, true})
          check_backward<TypeParam>(rows, dim, with_ds, with_dbranch, beta);
}

TYPED_TEST(Norm, SameBitsOnAnyNumberOfThreads) {
  using T = TypeParam;
  // Blocks of rows on every backend; the emulator takes a millisecond a row.
  const int64_t rows = kDevice == Device::cuda ? 99 : 999, dim = 129;
  const Problem<T> p(rows, dim);
  std::vector<std::vector<float>> dw;
  for (const int threads : {1, 2, 3}) {
    Backend exec = backend(threads);
    Array<float> rstd(rows), dx(rows * dim), sum(dim, 0.0f);
    Array<T> y(rows * dim);
    residual_norm_forward<T>(exec, {.rows = rows,
                                    .dim = dim,
                                    .eps = kEps,
                                    .x = in(p.x).data(),
                                    .w = in(p.w).data(),
                                    .y = y.data(),
                                    .rstd = rstd.data()});
    residual_norm_backward<T>(exec, {.rows = rows,
                                     .dim = dim,
                                     .beta = 0,
                                     .s = in(p.x).data(),
                                     .w = in(p.w).data(),
                                     .rstd = rstd.data(),
                                     .dy = in(p.dy).data(),
                                     .dx = dx.data(),
                                     .dw = sum.data()});
    dw.push_back(sum.host());
  }
  EXPECT_EQ(dw[0], dw[1]);
  EXPECT_EQ(dw[0], dw[2]);
}

TYPED_TEST(Norm, NanStaysInItsRow) {
  using T = TypeParam;
  Problem<T> p(3, 20);
  p.x[25] = std::numeric_limits<float>::quiet_NaN();
  Backend exec = backend();
  Array<float> rstd(3);
  Array<T> y_device(60);
  residual_norm_forward<T>(exec, {.rows = 3,
                                  .dim = 20,
                                  .eps = kEps,
                                  .x = in(p.x).data(),
                                  .w = in(p.w).data(),
                                  .y = y_device.data(),
                                  .rstd = rstd.data()});
  const std::vector<T> y = y_device.host();
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(to_f32(y[i])), i / 20 == 1) << i;
}

}  // namespace
}  // namespace rodimus
