// The short convolution: golden data, the double reference, its complex-step gradient, and
// documents packed into one sequence compared with the same documents run separately.
#include "kernels/short_conv.h"

#include <array>
#include <cmath>
#include <limits>

#include "kernels/reference/short_conv.h"
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
using testing::to_complex;
using testing::to_double;
using testing::tolerance;

template <class T>
class ShortConv : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(ShortConv, Types);

template <class T>
struct Problem {
  ShortConvDims dims;
  std::vector<T> x, dy, history;
  std::vector<float> weight, bias;
  std::vector<int32_t> starts;  // empty: one document

  explicit Problem(ShortConvDims d)
      : dims(d),
        x(cast<T>(testing::normal(d.B * d.T * d.D, 1))),
        dy(cast<T>(testing::normal(d.B * d.T * d.D, 2))),
        history(cast<T>(testing::normal(d.B * (d.width - 1) * d.D, 3))),
        weight(cast<float>(testing::normal(d.D * d.width, 4, 0.5))),
        bias(cast<float>(testing::normal(d.D, 5))) {}
  const int32_t* starts_or_null() const { return starts.empty() ? nullptr : starts.data(); }
};

template <class T>
struct Result {
  std::vector<T> y, dx, dhistory;
  std::vector<float> dweight, dbias;
};

template <class T>
Result<T> run(const Problem<T>& p, bool with_history, int threads) {
  Backend exec = backend(threads);
  const auto nan = T(std::numeric_limits<float>::quiet_NaN());
  const auto n = static_cast<int64_t>(p.x.size());
  Array<T> y(n, nan), dx(n, nan), dhistory(static_cast<int64_t>(p.history.size()), nan);
  Array<float> dweight(static_cast<int64_t>(p.weight.size()), 0.5f), dbias(p.dims.D, 0.5f);
  const Array<T> x(p.x), history_values(p.history);
  const Array<float> weight(p.weight), bias(p.bias);
  const Array<int32_t> start_values(p.starts);
  const T* history = with_history ? history_values.data() : nullptr;
  const int32_t* starts = p.starts.empty() ? nullptr : start_values.data();
  short_conv_forward<T>(exec, {.dims = p.dims,
                               .x = x.data(),
                               .weight = weight.data(),
                               .bias = bias.data(),
                               .history = history,
                               .starts = starts,
                               .y = y.data()});
  short_conv_backward<T>(exec, {.dims = p.dims,
                                .x = x.data(),
                                .weight = weight.data(),
                                .bias = bias.data(),
                                .history = history,
                                .starts = starts,
                                .dy = in(p.dy).data(),
                                .dx = dx.data(),
                                .dhistory = with_history ? dhistory.data() : nullptr,
                                .dweight = dweight.data(),
                                .dbias = dbias.data()});
  return {y.host(), dx.host(), dhistory.host(), dweight.host(), dbias.host()};
}

// Sums start at 0.5 to check that they accumulate.
std::vector<double> plus_half(std::vector<double> x) {
  for (double& value : x) value += 0.5;
  return x;
}

// Inputs in the order x, weight, bias, history.
template <class R, class T>
std::vector<R> reference_y(const Problem<T>& p, const std::array<std::vector<R>, 4>& in,
                           bool with_history) {
  std::vector<R> y(in[0].size());
  reference::short_conv(y.data(), in[0].data(), in[1].data(), in[2].data(),
                        with_history ? in[3].data() : nullptr, p.starts_or_null(), p.dims.B,
                        p.dims.T, p.dims.D, p.dims.width);
  return y;
}

template <class T>
void check(const Problem<T>& p, bool with_history) {
  SCOPED_TRACE(::testing::Message()
               << "B " << p.dims.B << " T " << p.dims.T << " D " << p.dims.D << " width "
               << p.dims.width << " history " << with_history << " starts " << !p.starts.empty());
  const std::array<std::vector<double>, 4> in = {to_double(p.x), to_double(p.weight),
                                                 to_double(p.bias), to_double(p.history)};
  std::array<ComplexVector, 4> z;
  for (size_t i = 0; i < 4; ++i) z[i] = to_complex(in[i]);
  const auto dy = to_double(p.dy);
  const auto gradient = [&](size_t which) {
    auto moved = z;
    return complex_step(in[which], [&](const ComplexVector& changed) {
      moved[which] = changed;
      return testing::dot(reference_y<Complex>(p, moved, with_history), dy);
    });
  };
  const auto got = run(p, with_history, 2);
  const int64_t width = p.dims.width, rows = p.dims.B * p.dims.T;
  EXPECT_TRUE(
      close(to_double(got.y), reference_y<double>(p, in, with_history), tolerance<T>(4 * width)));
  EXPECT_TRUE(close(to_double(got.dx), gradient(0), tolerance<T>(4 * width)));
  EXPECT_TRUE(close(to_double(got.dweight), plus_half(gradient(1)), tolerance<float>(4 * rows)));
  EXPECT_TRUE(close(to_double(got.dbias), plus_half(gradient(2)), tolerance<float>(4 * rows)));
  if (with_history && width > 1) {
    EXPECT_TRUE(close(to_double(got.dhistory), gradient(3), tolerance<T>(4 * width)));
  }
}

TYPED_TEST(ShortConv, MatchesReferenceAndComplexStep) {
  for (const ShortConvDims dims : {ShortConvDims{1, 1, 7, 4},
                                   {2, 5, 3, 4},
                                   {1, 2, 9, 4},
                                   {2, 7, 8, 1},
                                   {1, 9, 5, 7},
                                   {3, 23, 9, 4},
                                   {2, 40, 3, 3},
                                   {1, 35, 8, 4}})
    for (const bool with_history : {false, true}) check(Problem<TypeParam>(dims), with_history);
}

TYPED_TEST(ShortConv, DocumentStarts) {
  Problem<TypeParam> p({2, 9, 5, 4});
  p.starts = {0, 0, 0, 3, 3, 5, 6, 6, 6, 0, 1, 1, 1, 1, 1, 1, 1, 8};
  for (const bool with_history : {false, true}) check(p, with_history);
}

// The last of many channels give the same result as on their own: when they start a new block, and
// in each kernel (packs of channels, single channels, more taps).
TYPED_TEST(ShortConv, ChannelsDoNotDependOnOthers) {
  using T = TypeParam;
  for (const auto& [D, alone, width] :
       {std::array<int64_t, 3>{1040, 16, 4}, {131, 3, 4}, {131, 3, 6}}) {
    SCOPED_TRACE(::testing::Message() << D << " channels, width " << width);
    const auto last = [all = D, some = alone](const auto& x, int64_t per_channel = 1) {
      std::decay_t<decltype(x)> part;
      const int64_t row = all * per_channel, kept = some * per_channel;
      for (int64_t end = row; end <= static_cast<int64_t>(x.size()); end += row)
        part.insert(part.end(), x.begin() + (end - kept), x.begin() + end);
      return part;
    };
    const Problem<T> many({2, 3, D, width});
    Problem<T> few({2, 3, alone, width});
    few.x = last(many.x);
    few.dy = last(many.dy);
    few.history = last(many.history);
    few.weight = last(many.weight, width);
    few.bias = last(many.bias);
    const auto got = run(many, true, 1), want = run(few, true, 1);
    EXPECT_EQ(to_double(last(got.y)), to_double(want.y));
    EXPECT_EQ(to_double(last(got.dx)), to_double(want.dx));
    EXPECT_EQ(to_double(last(got.dhistory)), to_double(want.dhistory));
    EXPECT_EQ(last(got.dweight, width), want.dweight);
    EXPECT_EQ(last(got.dbias), want.dbias);
  }
}

// A sequence of two documents gives the same bits as the two documents run separately.
TYPED_TEST(ShortConv, StartsEqualSeparateSequences) {
  using T = TypeParam;
  const int64_t D = 19, first = 6, second = 11;
  Problem<T> packed({1, first + second, D, 4});
  packed.starts.assign(static_cast<size_t>(first + second), 0);
  for (int64_t t = first; t < first + second; ++t)
    packed.starts[static_cast<size_t>(t)] = static_cast<int32_t>(first);
  const auto whole = run(packed, true, 1);
  std::vector<T> y, dx;
  for (const auto& [begin, length] : {std::array<int64_t, 2>{0, first}, {first, second}}) {
    Problem<T> part({1, length, D, 4});
    part.x.assign(packed.x.begin() + begin * D, packed.x.begin() + (begin + length) * D);
    part.dy.assign(packed.dy.begin() + begin * D, packed.dy.begin() + (begin + length) * D);
    const auto r = run(part, begin == 0, 1);
    y.insert(y.end(), r.y.begin(), r.y.end());
    dx.insert(dx.end(), r.dx.begin(), r.dx.end());
  }
  EXPECT_EQ(to_double(whole.y), to_double(y));
  EXPECT_EQ(to_double(whole.dx), to_double(dx));
}

// Running two halves, with the end of the first as the history of the second, changes no bits.
TYPED_TEST(ShortConv, SplitAndCarriedEqualsWhole) {
  using T = TypeParam;
  const int64_t D = 13, half = 8;
  Problem<T> whole({1, 2 * half, D, 4}), part({1, half, D, 4});
  const auto want = run(whole, false, 1);
  part.x.assign(whole.x.begin() + half * D, whole.x.end());
  part.history.assign(whole.x.begin() + (half - 3) * D, whole.x.begin() + half * D);
  const auto got = run(part, true, 1);
  EXPECT_EQ(to_double(got.y), to_double(std::vector<T>(want.y.begin() + half * D, want.y.end())));
}

template <class T>
Problem<T> golden_problem(const Golden& golden) {
  const auto shape = golden.shape("x");
  Problem<T> p({shape[0], shape[1], shape[2], golden.shape("weight").back()});
  p.x = cast<T>(golden.array("x"));
  p.weight = golden.f32("weight");
  p.bias = golden.f32("bias");
  p.history = cast<T>(golden.array("history"));
  p.dy = cast<T>(golden.array("d_y"));
  return p;
}

TEST(ShortConvGolden, MatchesTheAuthorsModel) {
  for (const auto& file : testing::golden_files("ops", "short_conv")) {
    SCOPED_TRACE(testing::golden_name(file));
    const Golden golden(file);
    const auto r = run(golden_problem<float>(golden), true, 2);
    EXPECT_TRUE(close(to_double(r.y), golden.array("y"), 2e-6));
    EXPECT_TRUE(close(to_double(r.dx), golden.array("d_x"), 2e-6));
    EXPECT_TRUE(close(to_double(r.dhistory), golden.array("d_history"), 2e-6));
    EXPECT_TRUE(close(to_double(r.dweight), plus_half(golden.array("d_weight")), 2e-6));
    EXPECT_TRUE(close(to_double(r.dbias), plus_half(golden.array("d_bias")), 2e-6));
  }
}

struct PlainResult {
  std::vector<float> y, dx, dhistory, dweight, dbias;
};

// The convolution is stored before its SiLU, and so is the gradient between them.
PlainResult plain_bf16(const Problem<bf16>& p) {
  const auto [B, T, D, width] = p.dims;
  PlainResult out{std::vector<float>(p.x.size()), std::vector<float>(p.x.size()),
                  std::vector<float>(p.history.size()), std::vector<float>(p.weight.size()),
                  std::vector<float>(p.bias.size())};
  for (int64_t row = 0; row < B * T; ++row) {
    const int64_t b = row / T, t = row % T;
    for (int64_t d = 0; d < D; ++d) {
      // Calls tap(weight, input, gradient of the input) for each tap.
      const auto for_taps = [&](auto tap) {
        for (int64_t i = 0; i < width; ++i) {
          const int64_t source = t - (width - 1) + i;
          const bool old = source < 0;
          const auto at = static_cast<size_t>(
              (old ? b * (width - 1) + width - 1 + source : b * T + source) * D + d);
          tap(static_cast<size_t>(d * width + i), to_f32(old ? p.history[at] : p.x[at]),
              old ? out.dhistory[at] : out.dx[at]);
        }
      };
      const auto at = static_cast<size_t>(row * D + d), channel = static_cast<size_t>(d);
      float z = testing::stored(p.bias[channel]);
      for_taps([&](size_t w, float x, float&) { z += testing::stored(p.weight[w]) * x; });
      z = testing::stored(z);
      const float s = 1 / (1 + std::exp(-z));
      out.y[at] = z * s;
      const float dz = testing::stored(to_f32(p.dy[at]) * s * (1 + z * (1 - s)));
      out.dbias[channel] += dz;
      for_taps([&](size_t w, float x, float& dx) {
        out.dweight[w] += dz * x;
        dx += dz * testing::stored(p.weight[w]);
      });
    }
  }
  for (auto* x : {&out.y, &out.dx, &out.dhistory, &out.dweight, &out.dbias})
    *x = testing::stored(*x);
  return out;
}

TEST(ShortConvGolden, Bf16IsAtMostTwiceAsWrongAsPlainLoops) {
  for (const auto& file : testing::golden_files("ops", "short_conv")) {
    const Golden golden(file);
    const auto p = golden_problem<bf16>(golden);
    auto got = run(p, true, 2);
    for (auto* sum : {&got.dweight, &got.dbias})
      for (float& value : *sum) value -= 0.5f;
    const auto plain = plain_bf16(p);
    const auto good = [&](const auto& ours, const auto& loops, const char* name) {
      return testing::at_most_twice_as_wrong(to_double(ours), to_double(loops), golden.array(name),
                                             2e-6);
    };
    EXPECT_TRUE(good(got.y, plain.y, "y"));
    EXPECT_TRUE(good(got.dx, plain.dx, "d_x"));
    EXPECT_TRUE(good(got.dhistory, plain.dhistory, "d_history"));
    EXPECT_TRUE(good(got.dweight, plain.dweight, "d_weight"));
    EXPECT_TRUE(good(got.dbias, plain.dbias, "d_bias"));
  }
}

TYPED_TEST(ShortConv, SameBitsOnAnyNumberOfThreads) {
  const Problem<TypeParam> p({3, 211, 37, 4});
  const auto one = run(p, true, 1);
  for (const int threads : {2, 3}) {
    const auto more = run(p, true, threads);
    EXPECT_EQ(to_double(one.y), to_double(more.y));
    EXPECT_EQ(one.dweight, more.dweight);
    EXPECT_EQ(one.dbias, more.dbias);
    EXPECT_EQ(to_double(one.dx), to_double(more.dx));
  }
}

TYPED_TEST(ShortConv, NanReachesExactlyTheTokensThatSeeIt) {
  Problem<TypeParam> p({1, 10, 4, 4});
  p.x[2 * 4 + 1] = TypeParam(std::numeric_limits<float>::quiet_NaN());
  const auto r = run(p, false, 1);
  for (size_t i = 0; i < r.y.size(); ++i)
    EXPECT_EQ(std::isnan(to_f32(r.y[i])), i % 4 == 1 && i / 4 >= 2 && i / 4 <= 5) << i;
}

}  // namespace
}  // namespace rodimus
