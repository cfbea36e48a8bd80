// AdamW compared with the equations in double, over several steps.
#include "kernels/adamw.h"

#include <cmath>
#include <limits>

#include "kernels/reference/adamw.h"
#include "tests/support/compare.h"
#include "tests/support/device.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace rodimus {
namespace {

using testing::Array;
using testing::backend;
using testing::Backend;
using testing::cast;
using testing::close;
using testing::in;
using testing::to_double;

AdamWStep step_number(int t) {
  AdamWStep step{.lr = 1e-2f,
                 .beta1 = 0.9f,
                 .beta2 = 0.95f,
                 .eps = 1e-8f,
                 .weight_decay = 0.1f,
                 .grad_scale = 0.37f,
                 .bias_correction1 = 0,
                 .bias_correction2 = 0};
  step.bias_correction1 = static_cast<float>(1 - std::pow(0.9, t));
  step.bias_correction2 = static_cast<float>(1 - std::pow(0.95, t));
  return step;
}

TEST(AdamW, MatchesTheEquationsOverFiveSteps) {
  for (const int64_t n : {int64_t{1}, int64_t{7}, int64_t{8}, int64_t{33}, int64_t{1000},
                          testing::kDevice == Device::cuda ? int64_t{4001} : 40000}) {
    for (const int threads : testing::thread_counts({1, 2})) {
      SCOPED_TRACE(::testing::Message() << n << " threads " << threads);
      Backend exec = backend(threads);
      auto p = cast<float>(testing::normal(n, 1)), m = cast<float>(testing::normal(n, 2, 1e-3)),
           v = cast<float>(testing::uniform(n, 3, 0, 1e-3));
      auto p64 = to_double(p), m64 = to_double(m), v64 = to_double(v);
      const auto p0 = p64;
      Array<float> p_device(p), m_device(m), v_device(v);
      Array<bf16> copy_device(n);
      constexpr int kSteps = 5;
      for (int t = 1; t <= kSteps; ++t) {
        const auto g = cast<float>(testing::normal(n, static_cast<uint64_t>(10 + t)));
        const auto g64 = to_double(g);
        adamw(exec, p_device.data(), m_device.data(), v_device.data(),
              t % 2 == 1 ? copy_device.data() : nullptr, in(g).data(), n, step_number(t));
        reference::adamw(p64.data(), m64.data(), v64.data(), g64.data(), n, step_number(t));
      }
      p = p_device.host(), m = m_device.host(), v = v_device.host();
      const std::vector<bf16> copy = copy_device.host();
      // The coefficients 1 - beta are rounded to f32: 1e-7 relative, like one more operation.
      EXPECT_TRUE(close(to_double(m), m64, kSteps * testing::tolerance<float>()));
      EXPECT_TRUE(close(to_double(v), v64, kSteps * testing::tolerance<float>()));
      // Compares the change of p, because p itself is large compared with lr. Each step rounds p
      // once.
      std::vector<double> moved = to_double(p), want = p64;
      for (size_t i = 0; i < want.size(); ++i) moved[i] -= p0[i], want[i] -= p0[i];
      EXPECT_TRUE(close(moved, want, 1e-4));
      EXPECT_TRUE(close(to_double(p), p64, kSteps * epsilon_of(DType::f32)));
      for (size_t i = 0; i < p.size(); ++i) EXPECT_EQ(copy[i].bits, bf16(p[i]).bits);
    }
  }
}

TEST(AdamW, NanGradientComesThrough) {
  Backend exec = backend();
  Array<float> p_device(9, 1), m_device(9, 0), v_device(9, 0);
  std::vector<float> g(9, 1);
  g[4] = std::numeric_limits<float>::quiet_NaN();
  adamw(exec, p_device.data(), m_device.data(), v_device.data(), nullptr, in(g).data(), 9,
        step_number(1));
  const std::vector<float> p = p_device.host(), m = m_device.host(), v = v_device.host();
  for (size_t i = 0; i < 9; ++i) {
    EXPECT_EQ(std::isnan(p[i]), i == 4);
    EXPECT_EQ(std::isnan(m[i]), i == 4);
    EXPECT_EQ(std::isnan(v[i]), i == 4);
  }
}

TEST(AdamW, ZeroGradientOnFreshMomentsOnlyDecays) {
  Backend exec = backend();
  Array<float> p(5, 2), m(5, 0), v(5, 0), g(5, 0);
  const AdamWStep step = step_number(1);
  adamw(exec, p.data(), m.data(), v.data(), nullptr, g.data(), 5, step);
  for (const float value : p.host()) EXPECT_FLOAT_EQ(value, 2 * (1 - step.lr * step.weight_decay));
}

}  // namespace
}  // namespace rodimus
