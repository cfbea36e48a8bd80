// DDTS compared with independent truths: golden files, the recurrence in double, complex steps.
#include "kernels/ddts.h"

#include <gtest/gtest.h>

#include <complex>

#include "tests/kernels/ddts_case.h"
#include "tests/support/golden.h"

namespace rodimus::testing {
namespace {

constexpr double kEps = 0x1p-24;  // unit roundoff of f32

double error_of_rounding(const Doubles& x) { return relative_rms(to_double(cast<bf16>(x)), x); }

// Twice the error of one rounding to bf16. On the CPU everything inside is f32, only stored results
// are rounded, and f32 results are as accurate as in f32. On the GPU the operands of products are
// rounded too: a term of a result goes through at most four roundings (the key that enters the
// state, the state where it is read, the query, the result), which are independent and add up in
// squares: sqrt(4).
void expect_close_bf16(const DdtsOutputs& got, const DdtsOutputs& want, double f32_tolerance) {
  for (size_t i = 0; i < got.named().size(); ++i) {
    const auto [name, value] = got.named()[i];
    const Doubles& expected = *want.named()[i].second;
    const bool f32 = value == &got.dg || value == &got.state_out || value == &got.dstate_in;
    const double tolerance =
        f32 && kDevice == Device::cpu ? f32_tolerance : 2 * error_of_rounding(expected);
    EXPECT_TRUE(close(*value, expected, tolerance)) << name;
  }
}

std::vector<std::filesystem::path> ddts_goldens() {
  auto files = golden_files("ops", "ddts_");
  std::erase_if(files, [](const auto& file) { return golden_name(file) == "ddts_gates"; });
  return files;
}

class DdtsGolden : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(DdtsGolden, AllOutputsAndGradients) {
  const Golden file(GetParam());
  const auto q = file.shape("q"), v = file.shape("v");
  DdtsInputs in{{q[0], q[1], q[2], v[2]}, file.array("q"),           file.array("k"),
                file.array("v"),          file.array("log_alpha"),   file.array("state_in"),
                file.array("d_out"),      file.array("d_state_out"), {}};
  const DdtsOutputs want{
      file.array("out"), file.array("state_out"),   file.array("d_q"),       file.array("d_k"),
      file.array("d_v"), file.array("d_log_alpha"), file.array("d_state_in")};
  // A path from token to token is a product of at most 64 decays and one factor per chunk, and sums
  // have a few hundred terms; rounding errors are independent, so they grow with the square root:
  // about sqrt(64 + 300) units.
  const double tolerance = std::sqrt(364.0) * kEps;  // 1.1e-6
  const bool null_state = file.number("has_state") == 0;
  expect_close(run_ddts<float>(in, 1, null_state), want, tolerance);
  // bf16 gets rounded inputs and is compared with the truth for those.
  for (Doubles* x : {&in.q, &in.k, &in.v, &in.d_o}) *x = to_double(cast<bf16>(*x));
  expect_close_bf16(run_ddts<bf16>(in, 1, null_state), reference_ddts(in), tolerance);
}

INSTANTIATE_TEST_SUITE_P(Files, DdtsGolden, ::testing::ValuesIn(ddts_goldens()),
                         [](const auto& test) { return golden_name(test.param); });

// Every kind of remainder: tokens modulo chunk and sub-chunk, keys modulo the vector width, columns
// modulo tile and block. The emulator is slow: on the GPU only sizes that differ for its kernels.
class DdtsSizes : public ::testing::TestWithParam<DdtsDims> {};

std::vector<DdtsDims> sizes() {
  if (kDevice == Device::cuda)
    return {{2, 1, 5, 3}, {1, 17, 33, 65}, {2, 65, 5, 3}, {1, 130, 100, 16}, {1, 15, 64, 130}};
  return {{2, 1, 5, 3},    {1, 2, 64, 64},   {2, 15, 7, 17}, {1, 16, 1, 1},     {1, 17, 33, 65},
          {3, 63, 16, 20}, {1, 64, 64, 130}, {2, 65, 5, 3},  {1, 127, 100, 16}, {1, 1000, 24, 31}};
}

TEST_P(DdtsSizes, MatchRecurrence) {
  const DdtsDims dims = GetParam();
  const std::vector<double> decays =
      kDevice == Device::cuda ? std::vector{0.02} : std::vector{0.0, 0.02, 1.0};
  for (const double decay : decays) {
    const DdtsInputs in = random_ddts(dims, decay, 7);
    // As for the golden files; without decay the T-term sums dominate.
    const double tolerance = std::sqrt(364.0 + static_cast<double>(dims.T)) * kEps;
    SCOPED_TRACE(decay);
    expect_close(run_ddts<float>(in, 2), reference_ddts(in), tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, DdtsSizes, ::testing::ValuesIn(sizes()), [](const auto& test) {
  const DdtsDims dims = test.param;
  return concat("B", dims.B, "T", dims.T, "K", dims.K, "V", dims.V);
});

// The reference backward, and with it the kernel, compared with derivatives of the reference
// forward that use only its definition: d/dx Re f(x + ih) = Im f(x + ih) / h, exact for h = 1e-100.
TEST(Ddts, GradientsMatchComplexStep) {
  using Complex = std::complex<double>;
  DdtsInputs in = random_ddts({2, 19, 5, 3}, 0.5, 11);
  in.starts.assign(2 * 19, 0);
  for (int32_t t = 7; t < 19; ++t) in.starts[t] = t < 16 ? 7 : 16;
  const auto complex = [](const Doubles& x) { return std::vector<Complex>(x.begin(), x.end()); };
  std::vector<Complex> q = complex(in.q), k = complex(in.k), v = complex(in.v), g = complex(in.g),
                       state = complex(in.state_in);
  const auto loss = [&] {
    std::vector<Complex> o(v.size()), s = state;
    reference::ddts(o.data(), s.data(), q.data(), k.data(), v.data(), g.data(), in.starts.data(),
                    in.dims);
    Complex sum = 0;
    for (size_t i = 0; i < o.size(); ++i) sum += o[i] * in.d_o[i];
    for (size_t i = 0; i < s.size(); ++i) sum += s[i] * in.dstate_out[i];
    return sum;
  };
  const auto derivative = [&](std::vector<Complex>& x) {
    Doubles d;
    for (Complex& value : x) {
      const Complex saved = value;
      value += Complex(0, 1e-100);
      d.push_back(loss().imag() * 1e100);
      value = saved;
    }
    return d;
  };
  DdtsOutputs want = reference_ddts(in);
  for (auto [x, reference] : {std::pair{&q, &want.dq},
                              {&k, &want.dk},
                              {&v, &want.dv},
                              {&g, &want.dg},
                              {&state, &want.dstate_in}}) {
    const Doubles exact = derivative(*x);
    EXPECT_TRUE(close(*reference, exact, 1e-13));
    *reference = exact;
  }
  expect_close(run_ddts<float>(in), want, std::sqrt(364.0) * kEps);
}

TEST(Ddts, Bf16RoundsNoMoreThanItMust) {
  for (const double decay : {0.02, 1.0}) {
    const DdtsInputs in = random_ddts({1, 150, 64, 72}, decay, 23);
    expect_close_bf16(run_ddts<bf16>(in, 2), reference_ddts(in), std::sqrt(364.0) * kEps);
  }
}

}  // namespace
}  // namespace rodimus::testing
