// The gated norm compared with golden data, the double reference and its complex-step gradient.
#include "kernels/gated_norm.h"

#include <array>
#include <cmath>
#include <limits>

#include "kernels/reference/gated_norm.h"
#include "tests/support/bf16_criterion.h"
#include "tests/support/compare.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"
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
using testing::Golden;
using testing::in;
using testing::kDevice;
using testing::to_complex;
using testing::to_double;
using testing::tolerance;

// The emulator takes a millisecond a row.
int64_t rows_of_test(int64_t on_cpu, int64_t on_gpu) {
  return kDevice == Device::cuda ? on_gpu : on_cpu;
}

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

// Forward, then backward; sums start at 0.5 to check that they accumulate.
template <class T>
Result<T> run(const Problem<T>& p, bool skip, int threads) {
  Backend exec = backend(threads);
  const auto n = static_cast<int64_t>(p.o.size()), dim = p.dims.dim;
  Array<T> y(n), d_o(n), dc(n), dgate(n);
  Array<float> rstd(p.dims.rows), dskip_weight(dim, 0.5f), dw(dim, 0.5f);
  const Array<T> o(p.o), c(p.c), gate(p.gate);
  const Array<float> skip_weight(p.skip_weight), w(p.w);
  gated_norm_forward<T>(exec, {.dims = p.dims,
                               .o = o.data(),
                               .c = skip ? c.data() : nullptr,
                               .skip_weight = skip ? skip_weight.data() : nullptr,
                               .gate = gate.data(),
                               .w = w.data(),
                               .y = y.data(),
                               .rstd = rstd.data()});
  gated_norm_backward<T>(exec, {.dims = p.dims,
                                .o = o.data(),
                                .c = skip ? c.data() : nullptr,
                                .skip_weight = skip ? skip_weight.data() : nullptr,
                                .gate = gate.data(),
                                .w = w.data(),
                                .rstd = rstd.data(),
                                .dy = in(p.dy).data(),
                                .d_o = d_o.data(),
                                .dc = skip ? dc.data() : nullptr,
                                .dgate = dgate.data(),
                                .dskip_weight = skip ? dskip_weight.data() : nullptr,
                                .dw = dw.data()});
  return {y.host(),     d_o.host(),  skip ? dc.host() : std::vector<T>(),
          dgate.host(), rstd.host(), dskip_weight.host(),
          dw.host()};
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
  const auto check = [](int64_t rows, int64_t dim, bool skip) {
    SCOPED_TRACE(::testing::Message() << rows << " x " << dim << " skip " << skip);
    const Problem<T> p(rows, dim);
    std::vector<double> rstd;
    const auto y = reference_y<double>(inputs(p), p.dims, skip, &rstd);
    const auto got = run(p, skip, 2);
    EXPECT_TRUE(close(to_double(got.y), y, tolerance<T>(dim)));
    EXPECT_TRUE(close(to_double(got.rstd), rstd, tolerance<float>(dim)));
  };
  for (const int64_t rows : {int64_t{1}, int64_t{3}, rows_of_test(64, 6)})
    for (const int64_t dim : {1, 7, 8, 33, 1000})
      for (const bool skip : {false, true}) check(rows, dim, skip);
  check(515, 4, true);  // more rows than the GPU launches blocks
}

TYPED_TEST(GatedNorm, BackwardMatchesComplexStep) {
  using T = TypeParam;
  for (const auto& [rows, dim] :
       {std::array<int64_t, 2>{1, 5}, {3, 7}, {6, 20}, {5, 33}, {rows_of_test(70, 25), 9}}) {
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

#ifdef RODIMUS_TEST_CUDA
// e of configs/4b.toml: on an A100 a block has no room for all that it keeps of shorter rows. The
// CPU's kernel stands for the truth.
TYPED_TEST(GatedNorm, LongRowsMatchTheCpu) {
  using T = TypeParam;
  const GatedNormDims dims{2, 6144, 1e-5f};
  const Problem<T> p(dims.rows, dims.dim);
  const size_t n = p.o.size(), dim = p.w.size();
  for (const bool skip : {false, true}) {
    SCOPED_TRACE(skip);
    Cpu cpu{2};
    std::vector<T> d_o(n), dc(n), dgate(n);
    std::vector<float> dskip_weight(dim, 0.5f), dw(dim, 0.5f);
    const auto got = run(p, skip, 1);
    gated_norm_backward<T>(cpu, {.dims = p.dims,
                                 .o = p.o.data(),
                                 .c = skip ? p.c.data() : nullptr,
                                 .skip_weight = skip ? p.skip_weight.data() : nullptr,
                                 .gate = p.gate.data(),
                                 .w = p.w.data(),
                                 .rstd = got.rstd.data(),
                                 .dy = p.dy.data(),
                                 .d_o = d_o.data(),
                                 .dc = skip ? dc.data() : nullptr,
                                 .dgate = dgate.data(),
                                 .dskip_weight = skip ? dskip_weight.data() : nullptr,
                                 .dw = dw.data()});
    EXPECT_TRUE(close(to_double(got.d_o), to_double(d_o), tolerance<T>(dims.dim)));
    EXPECT_TRUE(close(to_double(got.dgate), to_double(dgate), tolerance<T>(dims.dim)));
    EXPECT_TRUE(close(to_double(got.dw), to_double(dw), tolerance<float>(dims.rows)));
    if (!skip) continue;
    EXPECT_TRUE(close(to_double(got.dc), to_double(dc), tolerance<T>(dims.dim)));
    EXPECT_TRUE(
        close(to_double(got.dskip_weight), to_double(dskip_weight), tolerance<float>(dims.rows)));
  }
}
#endif

template <class T>
Problem<T> golden_problem(const Golden& golden) {
  const int64_t dim = golden.shape("x").back();
  Problem<T> p(static_cast<int64_t>(golden.f32("x").size()) / dim, dim);
  p.dims.eps = static_cast<float>(golden.number("eps"));
  p.o = cast<T>(golden.array("x"));
  p.gate = cast<T>(golden.array("gate"));
  p.dy = cast<T>(golden.array("d_y"));
  p.w = golden.f32("weight");
  return p;
}

TEST(GatedNormGolden, MatchesTheAuthorsModel) {
  for (const auto& file : testing::golden_files("ops", "gated_rms_norm")) {
    SCOPED_TRACE(testing::golden_name(file));
    const Golden golden(file);
    auto r = run(golden_problem<float>(golden), false, 2);
    for (float& value : r.dw) value -= 0.5f;
    EXPECT_TRUE(close(to_double(r.y), golden.array("y"), 2e-6));
    EXPECT_TRUE(close(to_double(r.d_o), golden.array("d_x"), 2e-6));
    EXPECT_TRUE(close(to_double(r.dgate), golden.array("d_gate"), 2e-6));
    EXPECT_TRUE(close(to_double(r.dw), golden.array("d_weight"), 2e-6));
  }
}

// The arrays compared with a golden file, in a fixed order.
struct GoldenResult {
  std::vector<double> y, d_x, d_gate, d_weight;
};

// Gate, product and normalised values are stored, so are their gradients.
GoldenResult plain_bf16(const Problem<bf16>& p) {
  const auto n = static_cast<size_t>(p.dims.dim);
  std::vector<float> dw(n);
  GoldenResult out;
  for (size_t row = 0; row < p.o.size(); row += n) {
    std::vector<float> gate(n), u(n), dn(n);
    float squares = 0, along = 0;
    for (size_t i = 0; i < n; ++i) {
      const float g = to_f32(p.gate[row + i]);
      gate[i] = testing::stored(g / (1 + std::exp(-g)));
      u[i] = testing::stored(to_f32(p.o[row + i]) * gate[i]);
      squares += u[i] * u[i];
    }
    const float rstd = 1 / std::sqrt(squares / static_cast<float>(n) + p.dims.eps);
    for (size_t i = 0; i < n; ++i) {
      const float w = testing::stored(p.w[i]), dy = to_f32(p.dy[row + i]);
      const float norm = testing::stored(u[i] * rstd);
      out.y.push_back(testing::stored(norm * w));
      dw[i] += dy * norm;
      dn[i] = testing::stored(dy * w);
      along += dn[i] * norm;
    }
    along /= static_cast<float>(n);
    for (size_t i = 0; i < n; ++i) {
      const float g = to_f32(p.gate[row + i]), s = 1 / (1 + std::exp(-g));
      const float du = testing::stored(rstd * (dn[i] - testing::stored(u[i] * rstd) * along));
      out.d_x.push_back(testing::stored(du * gate[i]));
      const float dgate = testing::stored(du * to_f32(p.o[row + i]));
      out.d_gate.push_back(testing::stored(dgate * s * (1 + g * (1 - s))));
    }
  }
  out.d_weight = to_double(testing::stored(dw));
  return out;
}

TEST(GatedNormGolden, Bf16IsAtMostTwiceAsWrongAsPlainLoops) {
  for (const auto& file : testing::golden_files("ops", "gated_rms_norm")) {
    const Golden golden(file);
    const auto p = golden_problem<bf16>(golden);
    auto got = run(p, false, 2);
    for (float& value : got.dw) value -= 0.5f;
    const auto plain = plain_bf16(p);
    const auto good = [&](const auto& ours, const auto& loops, const char* name) {
      return testing::at_most_twice_as_wrong(to_double(ours), loops, golden.array(name), 2e-6);
    };
    EXPECT_TRUE(good(got.y, plain.y, "y"));
    EXPECT_TRUE(good(got.d_o, plain.d_x, "d_x"));
    EXPECT_TRUE(good(got.dgate, plain.d_gate, "d_gate"));
    EXPECT_TRUE(good(got.dw, plain.d_weight, "d_weight"));
  }
}

TYPED_TEST(GatedNorm, SameBitsOnAnyNumberOfThreads) {
  const Problem<TypeParam> p(rows_of_test(501, 50), 65);
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
