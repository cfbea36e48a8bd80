// The gated norm against golden data, the double reference and its complex-step gradient.
#include "kernels/gated_norm.h"

#include <array>
#include <cmath>
#include <limits>

#include "kernels/reference/gated_norm.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/gradient.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace rodimus {
namespace {

using testing::cast;
using testing::close;
using testing::Complex;
using testing::complex_step;
using testing::ComplexVector;
using testing::Golden;
using testing::to_complex;
using testing::to_double;
using testing::tolerance;

template <class T>
class GatedNorm : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(GatedNorm, Types);

template <class T>
struct Problem {
  GatedNormDims dims;
  std::vector<T> o, c, gate, dy;
  std::vector<float> skip_weight, w;

  Problem(int64_t rows, int64_t dim)
      : dims{rows, dim, 1e-5f},
        o(cast<T>(testing::normal(rows * dim, 1))),
        c(cast<T>(testing::normal(rows * dim, 2))),
        gate(cast<T>(testing::normal(rows * dim, 3, 2))),
        dy(cast<T>(testing::normal(rows * dim, 4))),
        skip_weight(cast<float>(testing::normal(dim, 5))),
        w(cast<float>(testing::uniform(dim, 6, 0.5, 1.5))) {}
};

template <class T>
struct Result {
  std::vector<T> y, d_o, dc, dgate;
  std::vector<float> rstd, dskip_weight, dw;
};

// Forward, then backward; sums start at 0.5 to see that they are added to.
template <class T>
Result<T> run(const Problem<T>& p, bool skip, int threads) {
  Cpu exec{threads};
  const size_t n = p.o.size(), dim = p.w.size();
  Result<T> r{std::vector<T>(n),
              std::vector<T>(n),
              std::vector<T>(n),
              std::vector<T>(n),
              std::vector<float>(static_cast<size_t>(p.dims.rows)),
              std::vector<float>(dim, 0.5f),
              std::vector<float>(dim, 0.5f)};
  const T* c = skip ? p.c.data() : nullptr;
  const float* skip_weight = skip ? p.skip_weight.data() : nullptr;
  gated_norm_forward(exec, r.y.data(), r.rstd.data(), p.o.data(), c, skip_weight, p.gate.data(),
                     p.w.data(), p.dims);
  gated_norm_backward(exec, r.d_o.data(), skip ? r.dc.data() : nullptr,
                      skip ? r.dskip_weight.data() : nullptr, r.dgate.data(), r.dw.data(),
                      p.dy.data(), p.o.data(), c, skip_weight, p.gate.data(), p.w.data(),
                      r.rstd.data(), p.dims);
  return r;
}

// Outputs of the reference; inputs in the order o, c, skip_weight, gate, w.
template <class R>
std::vector<R> reference_y(const std::array<std::vector<R>, 5>& in, GatedNormDims dims, bool skip,
                           std::vector<R>* rstd = nullptr) {
  std::vector<R> y(in[0].size()), scale(static_cast<size_t>(dims.rows));
  reference::gated_norm(y.data(), scale.data(), in[0].data(), skip ? in[1].data() : nullptr,
                        skip ? in[2].data() : nullptr, in[3].data(), in[4].data(), dims.rows,
                        dims.dim, dims.eps);
  if (rstd != nullptr) *rstd = scale;
  return y;
}

template <class T>
std::array<std::vector<double>, 5> inputs(const Problem<T>& p) {
  return {to_double(p.o), to_double(p.c), to_double(p.skip_weight), to_double(p.gate),
          to_double(p.w)};
}

TYPED_TEST(GatedNorm, ForwardMatchesReference) {
  using T = TypeParam;
  for (const int64_t rows : {1, 3, 64}) {
    for (const int64_t dim : {1, 7, 8, 33, 1000}) {
      for (const bool skip : {false, true}) {
        SCOPED_TRACE(::testing::Message() << rows << " x " << dim << " skip " << skip);
        const Problem<T> p(rows, dim);
        std::vector<double> rstd;
        const auto y = reference_y<double>(inputs(p), p.dims, skip, &rstd);
        const auto got = run(p, skip, 2);
        EXPECT_TRUE(close(to_double(got.y), y, tolerance<T>(dim)));
        EXPECT_TRUE(close(to_double(got.rstd), rstd, tolerance<float>(dim)));
      }
    }
  }
}

TYPED_TEST(GatedNorm, BackwardMatchesComplexStep) {
  using T = TypeParam;
  for (const auto& [rows, dim] : {std::array<int64_t, 2>{1, 5}, {3, 7}, {5, 33}, {70, 9}}) {
    for (const bool skip : {false, true}) {
      SCOPED_TRACE(::testing::Message() << rows << " x " << dim << " skip " << skip);
      const Problem<T> p(rows, dim);
      const auto in = inputs(p);
      const auto dy = to_double(p.dy);
      std::array<ComplexVector, 5> z;
      for (size_t i = 0; i < 5; ++i) z[i] = to_complex(in[i]);
      const auto gradient = [&](size_t which) {
        return complex_step(in[which], [&](const ComplexVector& changed) {
          auto moved = z;
          moved[which] = changed;
          return testing::dot(reference_y<Complex>(moved, p.dims, skip), dy);
        });
      };
      const auto plus_half = [](std::vector<double> x) {
        for (double& value : x) value += 0.5;
        return x;
      };
      const auto got = run(p, skip, 2);
      EXPECT_TRUE(close(to_double(got.d_o), gradient(0), tolerance<T>(4 * dim)));
      EXPECT_TRUE(close(to_double(got.dgate), gradient(3), tolerance<T>(4 * dim)));
      EXPECT_TRUE(close(to_double(got.dw), plus_half(gradient(4)), tolerance<float>(4 * rows)));
      if (skip) {
        EXPECT_TRUE(close(to_double(got.dc), gradient(1), tolerance<T>(4 * dim)));
        EXPECT_TRUE(
            close(to_double(got.dskip_weight), plus_half(gradient(2)), tolerance<float>(4 * rows)));
      }
    }
  }
}

TEST(GatedNormGolden, MatchesTheAuthorsModel) {
  for (const auto& file : testing::golden_files("ops", "gated_rms_norm")) {
    SCOPED_TRACE(testing::golden_name(file));
    const Golden golden(file);
    Problem<float> p(1, 1);
    const auto shape = golden.shape("x");
    p.dims.dim = shape.back();
    p.dims.rows = static_cast<int64_t>(golden.f32("x").size()) / p.dims.dim;
    p.dims.eps = static_cast<float>(golden.number("eps"));
    p.o = golden.f32("x");
    p.gate = golden.f32("gate");
    p.dy = golden.f32("d_y");
    p.w = golden.f32("weight");
    auto r = run(p, false, 2);
    for (float& value : r.dw) value -= 0.5f;
    EXPECT_TRUE(close(to_double(r.y), golden.array("y"), 2e-6));
    EXPECT_TRUE(close(to_double(r.d_o), golden.array("d_x"), 2e-6));
    EXPECT_TRUE(close(to_double(r.dgate), golden.array("d_gate"), 2e-6));
    EXPECT_TRUE(close(to_double(r.dw), golden.array("d_weight"), 2e-6));
  }
}

TYPED_TEST(GatedNorm, SameBitsOnAnyNumberOfThreads) {
  const Problem<TypeParam> p(501, 65);
  const auto one = run(p, true, 1);
  for (const int threads : {2, 3}) {
    const auto more = run(p, true, threads);
    EXPECT_EQ(one.dw, more.dw);
    EXPECT_EQ(one.dskip_weight, more.dskip_weight);
    EXPECT_EQ(to_double(one.dgate), to_double(more.dgate));
  }
}

TYPED_TEST(GatedNorm, NanStaysInItsRow) {
  Problem<TypeParam> p(3, 20);
  p.gate[25] = TypeParam(std::numeric_limits<float>::quiet_NaN());
  const auto r = run(p, true, 1);
  for (size_t i = 0; i < r.y.size(); ++i) {
    EXPECT_EQ(std::isnan(to_f32(r.y[i])), i / 20 == 1) << i;
    EXPECT_EQ(std::isnan(to_f32(r.d_o[i])), i / 20 == 1) << i;
  }
}

}  // namespace
}  // namespace rodimus
