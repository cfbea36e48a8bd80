// Tempered selection: golden data with extreme gates, the double reference and its complex-step
// gradient.
#include "kernels/ddts_gates.h"

#include <array>
#include <cmath>
#include <limits>

#include "kernels/reference/ddts_gates.h"
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

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <class T>
class DdtsGates : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(DdtsGates, Types);

template <class T>
struct Problem {
  DdtsGatesDims dims;
  std::vector<T> qk, gates, dq, dk;
  std::vector<float> bias, dg;

  Problem(int64_t rows, int64_t m, float eps = 1e-12f)
      : dims{rows, m, eps},
        qk(cast<T>(testing::normal(rows * 2 * m, 1))),
        gates(cast<T>(testing::normal(rows * 2 * m, 2, 3))),
        dq(cast<T>(testing::normal(rows * m, 3))),
        dk(cast<T>(testing::normal(rows * m, 4))),
        bias(cast<float>(testing::normal(2 * m, 5))),
        dg(cast<float>(testing::normal(rows * m, 6))) {}
};

template <class T>
struct Result {
  std::vector<T> q, k, dqk, dgates;
  std::vector<float> g, dbias;
};

template <class T>
Result<T> run(const Problem<T>& p, bool with_bias, int threads) {
  Backend exec = backend(threads);
  const auto n = static_cast<int64_t>(p.dq.size());
  Array<T> q(n), k(n), dqk(2 * n), dgates(2 * n);
  Array<float> g(n), dbias(2 * p.dims.m, 0.5f);
  const Array<T> qk(p.qk), gates(p.gates);
  const Array<float> bias_values(p.bias);
  const float* bias = with_bias ? bias_values.data() : nullptr;
  ddts_gates_forward<T>(exec, {.dims = p.dims,
                               .qk = qk.data(),
                               .gates = gates.data(),
                               .bias = bias,
                               .q = q.data(),
                               .k = k.data(),
                               .g = g.data()});
  ddts_gates_backward<T>(exec, {.dims = p.dims,
                                .qk = qk.data(),
                                .gates = gates.data(),
                                .bias = bias,
                                .dq = in(p.dq).data(),
                                .dk = in(p.dk).data(),
                                .dg = in(p.dg).data(),
                                .dqk = dqk.data(),
                                .dgates = dgates.data(),
                                .dbias = with_bias ? dbias.data() : nullptr});
  return {q.host(), k.host(), dqk.host(), dgates.host(), g.host(), dbias.host()};
}

template <class R>
struct Outputs {
  std::vector<R> q, k, g;
};
// Inputs in the order qk, gates, bias.
template <class R>
Outputs<R> reference_outputs(const std::array<std::vector<R>, 3>& in, DdtsGatesDims dims,
                             bool with_bias) {
  const auto n = static_cast<size_t>(dims.rows * dims.m);
  Outputs<R> out{std::vector<R>(n), std::vector<R>(n), std::vector<R>(n)};
  reference::ddts_gates(out.q.data(), out.k.data(), out.g.data(), in[0].data(), in[1].data(),
                        with_bias ? in[2].data() : nullptr, dims.rows, dims.m, dims.key_norm_eps);
  return out;
}

template <class T>
void check(const Problem<T>& p, bool with_bias) {
  SCOPED_TRACE(::testing::Message() << p.dims.rows << " x " << p.dims.m << " bias " << with_bias);
  const std::array<std::vector<double>, 3> in = {to_double(p.qk), to_double(p.gates),
                                                 to_double(p.bias)};
  std::array<ComplexVector, 3> z;
  for (size_t i = 0; i < 3; ++i) z[i] = to_complex(in[i]);
  const auto dq = to_double(p.dq), dk = to_double(p.dk), dg = to_double(p.dg);
  const auto gradient = [&](size_t which) {
    auto moved = z;
    return complex_step(in[which], [&](const ComplexVector& changed) {
      moved[which] = changed;
      const auto out = reference_outputs<Complex>(moved, p.dims, with_bias);
      return testing::dot(out.q, dq) + testing::dot(out.k, dk) + testing::dot(out.g, dg);
    });
  };
  const auto want = reference_outputs<double>(in, p.dims, with_bias);
  const auto got = run(p, with_bias, 2);
  const int64_t m = p.dims.m;
  EXPECT_EQ(to_double(got.q), want.q);
  // The exponent tau log(sel) reaches 10 here, and its absolute rounding error becomes relative.
  EXPECT_TRUE(close(to_double(got.k), want.k, tolerance<T>(16 * m)));
  EXPECT_TRUE(close(to_double(got.g), want.g, tolerance<float>()));
  EXPECT_TRUE(close(to_double(got.dqk), gradient(0), tolerance<T>(64 * m)));
  EXPECT_TRUE(close(to_double(got.dgates), gradient(1), tolerance<T>(64 * m)));
  if (with_bias) {
    auto dbias = gradient(2);
    for (double& value : dbias) value += 0.5;
    EXPECT_TRUE(close(to_double(got.dbias), dbias, tolerance<float>(64 * p.dims.rows)));
  }
}

TYPED_TEST(DdtsGates, MatchesReferenceAndComplexStep) {
  constexpr int64_t kRows = kDevice == Device::cuda ? 20 : 70;  // runs once per schedule there
  for (const auto& [rows, m] : {std::array<int64_t, 2>{1, 5}, {3, 7}, {5, 24}, {4, 33}, {kRows, 9}})
    for (const bool with_bias : {false, true}) check(Problem<TypeParam>(rows, m), with_bias);
}

// Keys shorter than the floor are divided by it, and their norm has no gradient.
TYPED_TEST(DdtsGates, ShortKeys) {
  Problem<TypeParam> p(2, 9, 1e-3f);
  for (auto& value : p.qk) value = TypeParam(to_f32(value) * 1e-5f);
  check(p, true);
}

TYPED_TEST(DdtsGates, ZeroKeysGiveZeroAndFiniteGradients) {
  Problem<TypeParam> p(2, 9);
  for (auto& value : p.qk) value = TypeParam(0.0f);
  const auto r = run(p, true, 1);
  for (const auto& value : r.k) EXPECT_EQ(to_f32(value), 0);
  for (const auto& value : r.dqk) EXPECT_TRUE(std::isfinite(to_f32(value)));
}

// Every value that a bf16 or f32 projection may hold gives finite results and the right limits.
TEST(DdtsGatesExtremes, AllPairsOfExtremeGates) {
  const std::vector<float> x = {-kInf,   -1e30f, -1000, -104, -100, -88, -60,
                                -10.01f, -9.99f, 0,     10,   60,   100, 1000};
  const std::vector<float> z = {-kInf, -1e30f, -200, -100, -40, 0, 40, 100, 1e30f, kInf};
  const auto m = static_cast<int64_t>(x.size() * z.size());
  Problem<float> p(1, m);
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = 0; j < z.size(); ++j) {
      p.gates[i * z.size() + j] = x[i];
      p.gates[static_cast<size_t>(m) + i * z.size() + j] = z[j];
    }
  }
  const auto r = run(p, false, 1);
  double squares = 0;
  for (int64_t i = 0; i < m; ++i)
    squares += std::pow(static_cast<double>(p.qk[static_cast<size_t>(m + i)]), 2);
  for (int64_t i = 0; i < m; ++i) {
    const auto at = static_cast<size_t>(i);
    const double gate = p.gates[at], tempering = p.gates[static_cast<size_t>(m + i)];
    SCOPED_TRACE(::testing::Message() << "select " << gate << " tau " << tempering);
    // -inf counts as -1e30. In f32 tau may be 0, and 0^0 = 1.
    const double tau = static_cast<float>(1 / (1 + std::exp(-tempering)));
    const double log_sel = gate < -30 ? std::max(gate, -1e30) : std::log(reference::softplus(gate));
    const double k = p.qk[static_cast<size_t>(m + i)] / std::sqrt(squares);
    const double want_k = k * std::exp(tau * log_sel);
    // exp(y) carries the rounding of y, up to 100 here, as a relative error.
    EXPECT_NEAR(r.k[at], want_k, 1e-5 * std::abs(want_k) + 1e-37);
    const double want_g = -reference::softplus(gate) * tau;
    EXPECT_NEAR(r.g[at], want_g, 1e-6 * std::abs(want_g) + 1e-37);
    EXPECT_TRUE(std::isfinite(r.dgates[at])) << r.dgates[at];
    EXPECT_TRUE(std::isfinite(r.dgates[static_cast<size_t>(m + i)]));
  }
}

TYPED_TEST(DdtsGates, NanStaysInItsRow) {
  Problem<TypeParam> p(3, 11);
  p.gates[22 + 3] = TypeParam(kNan);
  p.gates[22 + 11 + 5] = TypeParam(kNan);
  const auto r = run(p, true, 1);
  for (size_t i = 0; i < r.g.size(); ++i) {
    const bool bad = i == 11 + 3 || i == 11 + 5;
    EXPECT_EQ(std::isnan(r.g[i]), bad) << i;
    EXPECT_EQ(std::isnan(to_f32(r.k[i])), bad) << i;
  }
  p = Problem<TypeParam>(3, 11);
  p.qk[22 + 11 + 5] = TypeParam(kNan);  // a NaN key makes the norm of its row NaN
  const auto spoilt = run(p, true, 1);
  for (size_t i = 0; i < spoilt.k.size(); ++i)
    EXPECT_EQ(std::isnan(to_f32(spoilt.k[i])), i / 11 == 1) << i;
}

template <class T>
Problem<T> golden_problem(const Golden& golden) {
  const int64_t m = golden.shape("k_raw").back();
  const auto k = cast<T>(golden.array("k_raw")), select = cast<T>(golden.array("select")),
             tau = cast<T>(golden.array("tau"));
  Problem<T> p(static_cast<int64_t>(k.size()) / m, m);
  // q is not part of the file: zeros in its half.
  const auto interleave = [&](const std::vector<T>& left, const std::vector<T>& right) {
    std::vector<T> both;
    for (int64_t r = 0; r < p.dims.rows; ++r) {
      both.insert(both.end(), left.begin() + r * m, left.begin() + (r + 1) * m);
      both.insert(both.end(), right.begin() + r * m, right.begin() + (r + 1) * m);
    }
    return both;
  };
  p.qk = interleave(std::vector<T>(k.size()), k);
  p.gates = interleave(select, tau);
  p.dk = cast<T>(golden.array("d_k"));
  p.dg = golden.f32("d_log_alpha");
  return p;
}

// The left (0) or right (1) half of each row.
template <class T>
std::vector<double> half(const std::vector<T>& both, int64_t which, int64_t m) {
  std::vector<double> out;
  for (int64_t i = 0; i < static_cast<int64_t>(both.size()) / 2; ++i)
    out.push_back(to_f32(both[static_cast<size_t>(i / m * 2 * m + which * m + i % m)]));
  return out;
}

TEST(DdtsGatesGolden, MatchesTheAuthorsModel) {
  for (const auto& file : testing::golden_files("ops", "ddts_gates")) {
    SCOPED_TRACE(testing::golden_name(file));
    const Golden golden(file);
    const auto p = golden_problem<float>(golden);
    const auto r = run(p, false, 2);
    EXPECT_TRUE(close(to_double(r.k), golden.array("k"), 2e-6));
    EXPECT_TRUE(close(to_double(r.g), golden.array("log_alpha"), 2e-6));
    EXPECT_TRUE(close(half(r.dqk, 1, p.dims.m), golden.array("d_k_raw"), 2e-6));
    EXPECT_TRUE(close(half(r.dgates, 0, p.dims.m), golden.array("d_select"), 2e-6));
    EXPECT_TRUE(close(half(r.dgates, 1, p.dims.m), golden.array("d_tau"), 2e-6));
    // Small values must be right too, not only the RMS: gates of -60 have gradients around 1e-23.
    const auto want = golden.array("d_select"), got = half(r.dgates, 0, p.dims.m);
    for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(got[i], want[i], 2e-5 * std::abs(want[i])) << i;
  }
}

struct PlainResult {
  std::vector<double> k, g, dk_raw, dselect, dtau;
};

// Every step of the formulas in kernels/ddts_gates.h is stored in its own array.
PlainResult plain_bf16(const Problem<bf16>& p) {
  const auto stored = [](float x) { return testing::stored(x); };
  const auto sigmoid = [](float x) { return 1 / (1 + std::exp(-x)); };
  const auto m = static_cast<size_t>(p.dims.m);
  PlainResult out;
  for (size_t row = 0; row < static_cast<size_t>(p.dims.rows); ++row) {
    const bf16 *key = p.qk.data() + row * 2 * m + m, *gates = p.gates.data() + row * 2 * m;
    float squares = 0, along = 0;
    for (size_t i = 0; i < m; ++i) squares += to_f32(key[i]) * to_f32(key[i]);
    const float norm = stored(std::sqrt(squares));
    std::vector<float> unit(m), dunit(m);
    for (size_t i = 0; i < m; ++i) {
      const float select = to_f32(gates[i]), dk = to_f32(p.dk[row * m + i]);
      const float dg = stored(p.dg[row * m + i]);
      const float sel = stored(std::max(select, 0.0f) + std::log1p(std::exp(-std::abs(select))));
      const float log_sel = stored(std::log(sel)), tau = stored(sigmoid(to_f32(gates[m + i])));
      const float power = stored(std::exp(stored(tau * log_sel)));
      unit[i] = stored(to_f32(key[i]) / norm);
      out.k.push_back(stored(unit[i] * power));
      out.g.push_back(-stored(sel * tau));

      dunit[i] = stored(dk * power);
      along += dunit[i] * unit[i];
      const float dexponent = stored(stored(dk * unit[i]) * power);
      const float dtau = stored(stored(dexponent * log_sel) - stored(dg * sel));
      const float dsel = stored(stored(stored(dexponent * tau) / sel) - stored(dg * tau));
      out.dselect.push_back(stored(dsel * sigmoid(select)));
      out.dtau.push_back(stored(dtau * tau * (1 - tau)));
    }
    for (size_t i = 0; i < m; ++i)
      out.dk_raw.push_back(stored((dunit[i] - unit[i] * along) / norm));
  }
  return out;
}

TEST(DdtsGatesGolden, Bf16IsAtMostTwiceAsWrongAsPlainLoops) {
  for (const auto& file : testing::golden_files("ops", "ddts_gates")) {
    const Golden golden(file);
    const auto p = golden_problem<bf16>(golden);
    const auto got = run(p, false, 2);
    const auto plain = plain_bf16(p);
    const auto good = [&](const auto& ours, const auto& loops, const char* name) {
      return testing::at_most_twice_as_wrong(ours, loops, golden.array(name), 2e-6);
    };
    EXPECT_TRUE(good(to_double(got.k), plain.k, "k"));
    EXPECT_TRUE(good(to_double(got.g), plain.g, "log_alpha"));
    EXPECT_TRUE(good(half(got.dqk, 1, p.dims.m), plain.dk_raw, "d_k_raw"));
    EXPECT_TRUE(good(half(got.dgates, 0, p.dims.m), plain.dselect, "d_select"));
    EXPECT_TRUE(good(half(got.dgates, 1, p.dims.m), plain.dtau, "d_tau"));
  }
}

TYPED_TEST(DdtsGates, SameBitsOnAnyNumberOfThreads) {
  // Blocks of rows on every backend; the emulator takes a millisecond a row.
  const Problem<TypeParam> p(kDevice == Device::cuda ? 150 : 700, 33);
  const auto one = run(p, true, 1);
  for (const int threads : {2, 3}) {
    const auto more = run(p, true, threads);
    EXPECT_EQ(one.dbias, more.dbias);
    EXPECT_EQ(to_double(one.dqk), to_double(more.dqk));
    EXPECT_EQ(to_double(one.k), to_double(more.k));
  }
  // All blocks together: a bias shifts the gate in every row.
  std::vector<double> sums(one.dbias.size(), 0.5);
  for (size_t i = 0; i < one.dgates.size(); ++i) sums[i % sums.size()] += to_f32(one.dgates[i]);
  EXPECT_TRUE(close(to_double(one.dbias), sums, tolerance<TypeParam>(p.dims.rows)));
}

}  // namespace
}  // namespace rodimus
