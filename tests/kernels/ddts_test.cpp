// DDTS against independent truths: golden files, the recurrence in double, complex steps.
#include "kernels/ddts.h"

#include <gtest/gtest.h>

#include <complex>

#include "tests/kernels/ddts_case.h"
#include "tests/support/golden.h"

namespace rodimus::testing {
namespace {

constexpr double kEps = 0x1p-24;  // unit roundoff of f32

std::vector<std::filesystem::path> ddts_goldens() {
  auto files = golden_files("ops", "ddts_");
  std::erase_if(files, [](const auto& file) { return golden_name(file) == "ddts_gates"; });
  return files;
}

class DdtsGolden : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(DdtsGolden, AllOutputsAndGradients) {
  const Golden file(GetParam());
  const auto q = file.shape("q"), v = file.shape("v");
  const DdtsInputs in{{q[0], q[1], q[2], v[2]}, file.array("q"),           file.array("k"),
                      file.array("v"),          file.array("log_alpha"),   file.array("state_in"),
                      file.array("d_out"),      file.array("d_state_out"), {}};
  const DdtsOutputs want{
      file.array("out"), file.array("state_out"),   file.array("d_q"),       file.array("d_k"),
      file.array("d_v"), file.array("d_log_alpha"), file.array("d_state_in")};
  // A path from token to token is a product of at most 64 decays and one factor per chunk, and sums
  // have a few hundred terms; rounding errors are independent, so they grow with the square root:
  // about sqrt(64 + 300) units.
  const double tolerance = std::sqrt(364.0) * kEps;  // 1.1e-6
  expect_close(run_ddts<float>(in), want, tolerance);
  if (file.number("has_state") == 0) expect_close(run_ddts<float>(in, 1, true), want, tolerance);
}

INSTANTIATE_TEST_SUITE_P(Files, DdtsGolden, ::testing::ValuesIn(ddts_goldens()),
                         [](const auto& test) { return golden_name(test.param); });

// Every remainder: tokens against chunk and sub-chunk, keys against the vector width, columns
// against tile and block.
class DdtsSizes : public ::testing::TestWithParam<DdtsDims> {};

std::string size_name(DdtsDims dims) {
  return concat("B", dims.B, "T", dims.T, "K", dims.K, "V", dims.V);
}

TEST_P(DdtsSizes, MatchRecurrence) {
  const DdtsDims dims = GetParam();
  for (const double decay : {0.0, 0.02, 1.0}) {
    const DdtsInputs in = random_ddts(dims, decay, 7);
    // As for the goldens; without decay the T-term sums dominate.
    const double tolerance = std::sqrt(364.0 + static_cast<double>(dims.T)) * kEps;
    DdtsOutputs want = reference_ddts(in);
    SCOPED_TRACE(decay);
    expect_close(run_ddts<float>(in, 2), want, tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, DdtsSizes,
                         ::testing::Values(DdtsDims{2, 1, 5, 3}, DdtsDims{1, 2, 64, 64},
                                           DdtsDims{2, 15, 7, 17}, DdtsDims{1, 16, 1, 1},
                                           DdtsDims{1, 17, 33, 65}, DdtsDims{3, 63, 16, 20},
                                           DdtsDims{1, 64, 64, 130}, DdtsDims{2, 65, 5, 3},
                                           DdtsDims{1, 127, 100, 16}, DdtsDims{1, 1000, 24, 31}),
                         [](const auto& test) { return size_name(test.param); });

// The reference backward, and with it the kernel, against derivatives of the reference forward that
// use nothing but its definition: d/dx Re f(x + ih) = Im f(x + ih) / h, exact for h = 1e-100.
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

// A plain bf16 implementation rounds at least every stored result once. Inside all is f32 here, so
// twice the error of that single rounding is the bound; it is stricter than twice the error of a
// recurrence that keeps its state in bf16.
TEST(Ddts, Bf16RoundsOnlyWhatItStores) {
  for (const double decay : {0.02, 1.0}) {
    const DdtsInputs in = random_ddts({2, 150, 64, 72}, decay, 23);
    const DdtsOutputs got = run_ddts<bf16>(in, 2), want = reference_ddts(in);
    const auto error_of_rounding = [](const Doubles& x) {
      return relative_rms(to_double(cast<bf16>(x)), x);
    };
    EXPECT_TRUE(close(got.o, want.o, 2 * error_of_rounding(want.o))) << "o";
    EXPECT_TRUE(close(got.dq, want.dq, 2 * error_of_rounding(want.dq))) << "dq";
    EXPECT_TRUE(close(got.dk, want.dk, 2 * error_of_rounding(want.dk))) << "dk";
    EXPECT_TRUE(close(got.dv, want.dv, 2 * error_of_rounding(want.dv))) << "dv";
    const double f32_tolerance = std::sqrt(364.0) * kEps;
    EXPECT_TRUE(close(got.dg, want.dg, f32_tolerance)) << "dg";
    EXPECT_TRUE(close(got.state_out, want.state_out, f32_tolerance)) << "state_out";
    EXPECT_TRUE(close(got.dstate_in, want.dstate_in, f32_tolerance)) << "dstate_in";
  }
}

}  // namespace
}  // namespace rodimus::testing
