// Rotary embedding compared with golden data and the double reference, at small and large
// positions.
#include "kernels/rotary.h"

#include <cmath>

#include "kernels/reference/rotary.h"
#include "tests/support/bf16_criterion.h"
#include "tests/support/compare.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace rodimus {
namespace {

using testing::Array;
using testing::backend;
using testing::Backend;
using testing::cast;
using testing::close;
using testing::Golden;
using testing::in;
using testing::to_double;
using testing::tolerance;

template <class T>
class Rotary : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(Rotary, Types);

int64_t count(const RotaryDims& d) { return d.B * d.T * d.H * d.D; }

TYPED_TEST(Rotary, MatchesReferenceAtAnyOffset) {
  using T = TypeParam;
  for (RotaryDims dims : {RotaryDims{1, 1, 1, 2}, {2, 5, 3, 6}, {1, 150, 1, 34}, {2, 65, 2, 64}}) {
    for (const int64_t offset : {int64_t{0}, int64_t{1}, int64_t{63}, int64_t{1000000}}) {
      for (const int threads : testing::thread_counts({1, 2})) {
        SCOPED_TRACE(::testing::Message() << "T " << dims.T << " D " << dims.D << " offset "
                                          << offset << " threads " << threads);
        dims.offset = offset;
        const auto x = cast<T>(testing::normal(count(dims), 1));
        std::vector<double> want(x.size());
        const auto x64 = to_double(x);
        reference::rotary(want.data(), x64.data(), dims.B, dims.T, dims.H, dims.D, dims.base,
                          offset);
        Backend exec = backend(threads);
        Array<T> y(count(dims)), in_place = x;
        rotary_forward(exec, y.data(), in(x).data(), dims);
        EXPECT_TRUE(close(to_double(y), want, tolerance<T>()));
        rotary_forward(exec, in_place.data(), std::as_const(in_place).data(), dims);
        EXPECT_EQ(to_double(in_place), to_double(y));
      }
    }
  }
}

// <rotate(x), d> = <x, rotate_backward(d)>: the backward is the transpose. It is also the inverse.
TYPED_TEST(Rotary, BackwardIsTransposeAndInverse) {
  using T = TypeParam;
  const RotaryDims dims{2, 70, 3, 10, 10000, 17};
  Backend exec = backend(2);
  const auto x = cast<T>(testing::normal(count(dims), 1));
  const auto d = cast<T>(testing::normal(count(dims), 2));
  Array<T> y_device(count(dims)), dx_device(count(dims)), back(count(dims));
  rotary_forward(exec, y_device.data(), in(x).data(), dims);
  rotary_backward(exec, dx_device.data(), in(d).data(), dims);
  rotary_backward(exec, back.data(), std::as_const(y_device).data(), dims);
  const std::vector<T> y = y_device.host(), dx = dx_device.host();
  double left = 0, right = 0, scale = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    left += static_cast<double>(to_f32(y[i])) * to_f32(d[i]);
    right += static_cast<double>(to_f32(x[i])) * to_f32(dx[i]);
    scale += 1;
  }
  // Sums of `scale` products of standard normals, each off by a relative rounding.
  EXPECT_NEAR(left, right, 4 * tolerance<T>() * std::sqrt(scale));
  EXPECT_TRUE(close(to_double(back), to_double(x), 2 * tolerance<T>()));
}

RotaryDims golden_dims(const Golden& golden) {
  const auto shape = golden.shape("x");
  return {shape[0],
          shape[1],
          shape[2],
          shape[3],
          static_cast<float>(golden.number("base")),
          static_cast<int64_t>(golden.number("offset"))};
}

TEST(RotaryGolden, MatchesTheAuthorsModel) {
  for (const auto& file : testing::golden_files("ops", "rotary")) {
    SCOPED_TRACE(testing::golden_name(file));
    const Golden golden(file);
    const RotaryDims dims = golden_dims(golden);
    Backend exec = backend(2);
    const auto x = golden.f32("x"), dy = golden.f32("d_y");
    Array<float> y(count(dims)), dx(count(dims));
    rotary_forward(exec, y.data(), in(x).data(), dims);
    rotary_backward(exec, dx.data(), in(dy).data(), dims);
    EXPECT_TRUE(close(to_double(y), golden.array("y"), tolerance<float>()));
    EXPECT_TRUE(close(to_double(dx), golden.array("d_x"), tolerance<float>()));
  }
}

// Cosines, sines and products are stored. `sign` -1 rotates back.
std::vector<double> plain_bf16(const RotaryDims& d, const std::vector<bf16>& x, float sign) {
  std::vector<double> y(x.size());
  for (int64_t row = 0; row < d.B * d.T * d.H; ++row) {
    const auto position = static_cast<double>(d.offset + row / d.H % d.T);
    for (int64_t i = 0; i < d.D / 2; ++i) {
      const double angle =
          position * std::pow(static_cast<double>(d.base),
                              -2.0 * static_cast<double>(i) / static_cast<double>(d.D));
      const float c = testing::stored(static_cast<float>(std::cos(angle)));
      const float s = sign * testing::stored(static_cast<float>(std::sin(angle)));
      const auto first = static_cast<size_t>(row * d.D + i);
      const auto second = first + static_cast<size_t>(d.D / 2);
      const float a = to_f32(x[first]), b = to_f32(x[second]);
      y[first] = testing::stored(testing::stored(a * c) - testing::stored(b * s));
      y[second] = testing::stored(testing::stored(b * c) + testing::stored(a * s));
    }
  }
  return y;
}

TEST(RotaryGolden, Bf16IsAtMostTwiceAsWrongAsPlainLoops) {
  for (const auto& file : testing::golden_files("ops", "rotary")) {
    const Golden golden(file);
    const RotaryDims dims = golden_dims(golden);
    Backend exec = backend(2);
    const auto x = cast<bf16>(golden.array("x")), dy = cast<bf16>(golden.array("d_y"));
    Array<bf16> y(count(dims)), dx(count(dims));
    rotary_forward(exec, y.data(), in(x).data(), dims);
    rotary_backward(exec, dx.data(), in(dy).data(), dims);
    EXPECT_TRUE(testing::at_most_twice_as_wrong(to_double(y), plain_bf16(dims, x, 1),
                                                golden.array("y"), tolerance<float>()));
    EXPECT_TRUE(testing::at_most_twice_as_wrong(to_double(dx), plain_bf16(dims, dy, -1),
                                                golden.array("d_x"), tolerance<float>()));
  }
}

TEST(RotaryErrors, OddHead) {
  Backend exec = backend();
  Array<float> x(3, 0.0f);
  EXPECT_THROW(rotary_forward(exec, x.data(), std::as_const(x).data(), RotaryDims{1, 1, 1, 3}),
               Error);
}

}  // namespace
}  // namespace rodimus
