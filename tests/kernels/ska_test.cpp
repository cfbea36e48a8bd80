#include "kernels/ska.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>
#include <limits>

#include "kernels/reference/ska.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/random.h"

namespace rodimus::testing {
namespace {

// Scores up to ~5 are sums of D products, each rounded (eps = 6e-8, growing as sqrt(D)), and an
// error in a score is a relative error of its weight: 5 sqrt(64) eps / sqrt(3) = 1.4e-6. The
// gradients multiply by one more weight and subtract delta, which loses about one bit.
constexpr double kForwardTolerance = 2e-6, kBackwardTolerance = 5e-6;

SkaDims with_keys(SkaDims dims) {
  if (dims.Tk == 0) dims.Tk = dims.T;
  return dims;
}
int64_t q_size(const SkaDims& d) { return d.B * d.T * d.H * d.D; }
int64_t k_size(const SkaDims& d) { return d.B * with_keys(d).Tk * d.Hk * d.D; }
int64_t v_size(const SkaDims& d) { return d.B * with_keys(d).Tk * d.Hv * d.D; }
std::vector<double> concatenated(std::initializer_list<std::vector<double>> parts) {
  std::vector<double> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

template <class T>
struct Inputs {
  std::vector<T> q, k, v, d_o;
  std::vector<int32_t> starts;
  const int32_t* documents() const { return starts.empty() ? nullptr : starts.data(); }
};
template <class T>
Inputs<T> random_inputs(const SkaDims& d, uint64_t seed) {
  return {cast<T>(normal(q_size(d), seed)),
          cast<T>(normal(k_size(d), seed + 1)),
          cast<T>(normal(v_size(d), seed + 2)),
          cast<T>(normal(q_size(d), seed + 3)),
          {}};
}

template <class T>
struct Results {
  std::vector<T> o, dq, dk, dv;
  std::vector<float> lse;
};
template <class T>
Results<T> run(const SkaDims& d, const Inputs<T>& in, int threads = 2) {
  Cpu exec{threads};
  const T poison(std::numeric_limits<float>::quiet_NaN());  // what is not overwritten shows
  Results<T> out{std::vector<T>(in.q.size(), poison), std::vector<T>(in.q.size(), poison),
                 std::vector<T>(in.k.size(), poison), std::vector<T>(in.v.size(), poison),
                 std::vector<float>(static_cast<size_t>(d.B * d.H * d.T), NAN)};
  ska_forward(exec, out.o.data(), out.lse.data(), in.q.data(), in.k.data(), in.v.data(),
              in.documents(), d);
  ska_backward(exec, out.dq.data(), out.dk.data(), out.dv.data(), in.d_o.data(), in.q.data(),
               in.k.data(), in.v.data(), out.o.data(), out.lse.data(), in.documents(), d);
  return out;
}

struct Wanted {
  std::vector<double> o, lse;
};
template <class T>
Wanted reference_forward(const SkaDims& d, const Inputs<T>& in) {
  Wanted want{std::vector<double>(in.q.size()),
              std::vector<double>(static_cast<size_t>(d.B * d.H * d.T))};
  reference::ska(want.o.data(), want.lse.data(), to_double(in.q).data(), to_double(in.k).data(),
                 to_double(in.v).data(), in.documents(), d);
  return want;
}

// Derivatives of <d_o, o> by complex step with respect to `count` entries of (q, k, v), spread over
// all of them, and what the kernel says about the same entries.
void check_gradients(const SkaDims& d, const Inputs<float>& in, const Results<float>& got,
                     size_t count) {
  const auto x = concatenated({to_double(in.q), to_double(in.k), to_double(in.v)});
  const auto gradient = concatenated({to_double(got.dq), to_double(got.dk), to_double(got.dv)});
  std::vector<std::complex<double>> z(x.begin(), x.end()), o(in.q.size()), lse(got.lse.size());
  std::vector<double> want, ours;
  count = std::min(count, x.size());
  for (size_t n = 0; n < count; ++n) {
    const size_t at = n * (x.size() - 1) / std::max<size_t>(count - 1, 1);
    z[at] = {x[at], 1e-100};
    reference::ska(o.data(), lse.data(), z.data(), z.data() + in.q.size(),
                   z.data() + in.q.size() + in.k.size(), in.documents(), d);
    double slope = 0;
    for (size_t i = 0; i < o.size(); ++i) slope += in.d_o[i] * o[i].imag() * 1e100;
    want.push_back(slope);
    ours.push_back(gradient[at]);
    z[at] = x[at];
  }
  EXPECT_TRUE(close(ours, want, kBackwardTolerance));
}

// Where a query sees only itself, p = 1 and ds = d_o v - delta is a difference of equal sums: zero
// up to the rounding of terms as large as d_o.
::testing::AssertionResult close_or_cancelled(const std::vector<float>& got,
                                              const std::vector<double>& want,
                                              const std::vector<float>& d_o) {
  if (std::any_of(want.begin(), want.end(), [](double x) { return x != 0; }))
    return close(to_double(got), want, kBackwardTolerance);
  std::vector<double> shifted = to_double(d_o), base = shifted;
  for (size_t i = 0; i < got.size(); ++i) shifted.at(i) += got[i];
  return close(shifted, base, kBackwardTolerance);
}

TEST(SkaGolden, ForwardAndGradients) {
  for (const auto& file : golden_files("ops", "ska_")) {
    SCOPED_TRACE(golden_name(file));
    const Golden golden(file);
    const auto q = golden.shape("q"), k = golden.shape("k"), v = golden.shape("v");
    const SkaDims dims{.B = q[0],
                       .T = q[1],
                       .H = q[2],
                       .D = q[3],
                       .Hk = k[2],
                       .Hv = v[2],
                       .left = static_cast<int64_t>(golden.number("keys_to_the_left"))};
    const Inputs<float> in{
        golden.f32("q"), golden.f32("k"), golden.f32("v"), golden.f32("d_out"), {}};
    const auto got = run(dims, in);
    EXPECT_TRUE(close(to_double(got.o), golden.array("out"), kForwardTolerance));
    EXPECT_TRUE(close_or_cancelled(got.dq, golden.array("d_q"), in.d_o));
    EXPECT_TRUE(close_or_cancelled(got.dk, golden.array("d_k"), in.d_o));
    EXPECT_TRUE(close(to_double(got.dv), golden.array("d_v"), kBackwardTolerance));
  }
}

// Every gradient entry at small sizes, a sample of them where tiles, tails and segments matter.
TEST(Ska, MatchesReferenceAndItsComplexStep) {
  const SkaDims cases[] = {
      {.B = 1, .T = 1, .H = 1, .D = 1},
      {.B = 2, .T = 5, .H = 3, .D = 3, .Hv = 3},
      {.B = 1, .T = 7, .H = 2, .D = 17, .Hk = 2, .Hv = 1, .left = 2},
      {.B = 1, .T = 9, .H = 4, .D = 5, .Hk = 2, .Hv = 4, .left = 0},
      {.B = 1, .T = 6, .H = 2, .D = 4, .Hv = 2, .Tk = 11, .left = 3},
      {.B = 1, .T = 101, .H = 2, .D = 33, .Hk = 1, .Hv = 2, .left = 50},
      {.B = 1, .T = 200, .H = 1, .D = 8},
      {.B = 1, .T = 30, .H = 2, .D = 8, .Hv = 2, .Tk = 207, .left = 70},
      {.B = 1, .T = 700, .H = 2, .D = 8, .Hv = 2, .left = 40},     // two segments
      {.B = 1, .T = 600, .H = 1, .D = 4, .Tk = 650, .left = 100},  // two, keys shared by both
  };
  uint64_t seed = 10;
  for (const SkaDims& d : cases) {
    SCOPED_TRACE(concat("B ", d.B, " T ", d.T, " Tk ", d.Tk, " H ", d.H, " D ", d.D, " Hk ", d.Hk,
                        " Hv ", d.Hv, " left ", d.left));
    const auto in = random_inputs<float>(d, seed += 10);
    const auto got = run(d, in);
    const auto want = reference_forward(d, in);
    EXPECT_TRUE(close(to_double(got.o), want.o, kForwardTolerance));
    EXPECT_TRUE(close(to_double(got.lse), want.lse, kForwardTolerance));
    check_gradients(d, in, got, d.T < 20 ? 10000 : 60);
  }
}

TEST(Ska, LengthsAroundTiles) {
  for (const int64_t T : {1, 2, 4, 5, 47, 48, 49, 63, 64, 65, 95, 96, 97, 1000}) {
    for (const int64_t left : {int64_t{-1}, int64_t{0}, int64_t{63}}) {
      SCOPED_TRACE(concat("T ", T, " left ", left));
      const SkaDims d{.B = 1, .T = T, .H = 2, .D = 16, .Hv = 2, .left = left};
      const auto in = random_inputs<float>(d, static_cast<uint64_t>(T));
      const auto got = run(d, in);
      const auto want = reference_forward(d, in);
      EXPECT_TRUE(close(to_double(got.o), want.o, kForwardTolerance));
      EXPECT_TRUE(close(to_double(got.lse), want.lse, kForwardTolerance));
    }
  }
}

// The last of W - 1, W and W + 1 keys sees exactly min(count, W) of them.
TEST(Ska, WindowIsExact) {
  for (const int64_t window : {1, 2, 6, 48, 64, 130}) {
    for (const int64_t keys : {window - 1, window, window + 1}) {
      if (keys == 0) continue;
      for (const int64_t T : {keys, int64_t{1}}) {
        const SkaDims d{.B = 1, .T = T, .H = 1, .D = 8, .Tk = keys, .left = window - 1};
        auto in = random_inputs<float>(d, static_cast<uint64_t>(keys));
        const auto before = run(d, in);
        for (const int64_t distance : {keys - 1, window - 1, window}) {
          if (distance < 0 || distance >= keys) continue;
          SCOPED_TRACE(concat("window ", window, " keys ", keys, " T ", T, " distance ", distance));
          auto changed = in;
          const size_t at = static_cast<size_t>((keys - 1 - distance) * d.D);
          for (size_t i = 0; i < 8; ++i) changed.k[at + i] += 1, changed.v[at + i] += 1;
          const auto after = run(d, changed);
          const auto last = [&](const Results<float>& r) {
            return std::vector<float>(r.o.end() - d.D, r.o.end());
          };
          EXPECT_EQ(last(before) != last(after), distance < window);
        }
      }
    }
  }
}

// Positions in a document count from its start, so attention over packed documents is attention
// over each alone.
TEST(Ska, DocumentStartsEqualSeparateSequences) {
  const std::vector<int64_t> lengths = {1, 70, 3, 126};
  const SkaDims d{.B = 1, .T = 200, .H = 2, .D = 12, .Hv = 2, .left = 99};
  auto in = random_inputs<float>(d, 3);
  for (int32_t first = 0; const int64_t length : lengths) {
    in.starts.insert(in.starts.end(), static_cast<size_t>(length), first);
    first += static_cast<int32_t>(length);
  }
  const auto packed = run(d, in);
  std::vector<double> o, dq, dk, dv;
  for (int64_t first = 0; const int64_t length : lengths) {
    SkaDims one = d;
    one.T = length;
    const auto part = [&](const std::vector<float>& x, int64_t heads) {
      return std::vector<float>(x.begin() + first * heads * d.D,
                                x.begin() + (first + length) * heads * d.D);
    };
    const auto alone =
        run(one, Inputs<float>{part(in.q, 2), part(in.k, 1), part(in.v, 2), part(in.d_o, 2), {}});
    for (const auto& [all, piece] :
         {std::pair{&o, &alone.o}, {&dq, &alone.dq}, {&dk, &alone.dk}, {&dv, &alone.dv}})
      all->insert(all->end(), piece->begin(), piece->end());
    first += length;
  }
  EXPECT_TRUE(close(to_double(packed.o), o, kForwardTolerance));
  EXPECT_TRUE(close(to_double(packed.dq), dq, kBackwardTolerance));
  EXPECT_TRUE(close(to_double(packed.dk), dk, kBackwardTolerance));
  EXPECT_TRUE(close(to_double(packed.dv), dv, kBackwardTolerance));
}

TEST(Ska, CachedKeysEqualTheTailOfTheWhole) {
  const SkaDims whole{.B = 2, .T = 150, .H = 4, .D = 10, .Hk = 2, .Hv = 4, .left = 77};
  const auto in = random_inputs<float>(whole, 5);
  const auto full = run(whole, in);
  for (const int64_t T : {1, 3, 7, 100}) {
    SCOPED_TRACE(T);
    SkaDims tail = whole;
    tail.T = T;
    tail.Tk = whole.T;
    Inputs<float> part = in;
    part.q.clear(), part.d_o.assign(static_cast<size_t>(q_size(tail)), 1.0f);
    std::vector<double> want;
    const int64_t row = whole.H * whole.D;
    for (int64_t b = 0; b < whole.B; ++b) {
      const int64_t begin = ((b + 1) * whole.T - T) * row, end = (b + 1) * whole.T * row;
      part.q.insert(part.q.end(), in.q.begin() + begin, in.q.begin() + end);
      want.insert(want.end(), full.o.begin() + begin, full.o.begin() + end);
    }
    EXPECT_TRUE(close(to_double(run(tail, part).o), want, kForwardTolerance));
  }
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}
TEST(Ska, BitsDoNotDependOnThreads) {
  const SkaDims cases[] = {{.B = 2, .T = 333, .H = 4, .D = 20, .Hk = 2, .Hv = 4, .left = 100},
                           {.B = 1, .T = 900, .H = 2, .D = 8, .Hv = 2, .left = 64}};
  for (const SkaDims& d : cases) {
    const auto in = random_inputs<float>(d, 6);
    const auto one = run(d, in, 1);
    for (const int threads : {2, 3}) {
      const auto many = run(d, in, threads);
      EXPECT_TRUE(same_bits(one.o, many.o) && same_bits(one.lse, many.lse));
      EXPECT_TRUE(same_bits(one.dq, many.dq) && same_bits(one.dk, many.dk) &&
                  same_bits(one.dv, many.dv));
    }
  }
}

TEST(Ska, NanReachesAllThatSeeIt) {
  for (const int64_t T : {3, 100}) {
    const SkaDims d{.B = 1, .T = T, .H = 2, .D = 6, .Hv = 2, .left = 20};
    const int64_t bad = T / 2;
    for (const char input : {'q', 'k', 'v'}) {
      SCOPED_TRACE(concat("T ", T, " NaN in ", input));
      auto in = random_inputs<float>(d, 8);
      auto& x = input == 'q' ? in.q : input == 'k' ? in.k : in.v;
      const int64_t heads = input == 'k' ? 1 : 2;
      x[static_cast<size_t>(bad * heads * d.D)] = NAN;  // head 0
      const auto got = run(d, in);
      for (int64_t i = bad; i < (input == 'q' ? bad + 1 : std::min(T, bad + 21)); ++i)
        EXPECT_TRUE(std::isnan(got.o[static_cast<size_t>(i * d.H * d.D)])) << "query " << i;
      EXPECT_TRUE(std::isnan(got.dq[static_cast<size_t>(bad * d.H * d.D)]));
      EXPECT_TRUE(std::isnan(got.dk[static_cast<size_t>(bad * d.D)]));
    }
  }
}

TEST(Ska, HugeScoresNeitherOverflowNorVanish) {
  const SkaDims d{.B = 1, .T = 120, .H = 1, .D = 4};
  auto in = random_inputs<float>(d, 9);
  for (float& x : in.q) x *= 300;
  for (float& x : in.k) x *= 300;
  const auto got = run(d, in);
  // Scores near 2e5 are known to 2e5 * 2 eps, and so are the weights, relative.
  EXPECT_TRUE(close(to_double(got.o), reference_forward(d, in).o, 2e5 * 2 * 0x1p-24));
  for (const auto* gradient : {&got.dq, &got.dk, &got.dv})
    for (const float x : *gradient) EXPECT_TRUE(std::isfinite(x));
}

// Plain loops over bf16 storage: scores, weights and their gradients are each stored as bf16, sums
// are f32. H = Hk = Hv = 1.
Results<bf16> plain_bf16(const SkaDims& d, const Inputs<bf16>& in) {
  const auto at = [&](const std::vector<bf16>& x, int64_t i, int64_t c) {
    return to_f32(x[static_cast<size_t>(i * d.D + c)]);
  };
  const float scale = 1 / std::sqrt(static_cast<float>(d.D));
  Results<bf16> out;
  out.o.resize(in.q.size());
  std::vector<float> dq(in.q.size()), dk(in.k.size()), dv(in.v.size());
  for (int64_t i = 0; i < d.T; ++i) {
    const int64_t first = std::max<int64_t>(0, i - d.left);
    std::vector<bf16> p;
    float largest = -INFINITY, sum = 0;
    for (int64_t j = first; j <= i; ++j) {
      float s = 0;
      for (int64_t c = 0; c < d.D; ++c) s += at(in.q, i, c) * at(in.k, j, c);
      p.push_back(bf16(s * scale));
      largest = std::max(largest, to_f32(p.back()));
    }
    for (bf16& w : p) sum += std::exp(to_f32(w) - largest);
    for (bf16& w : p) w = bf16(std::exp(to_f32(w) - largest) / sum);
    float delta = 0;
    for (int64_t c = 0; c < d.D; ++c) {
      float o = 0;
      for (int64_t j = first; j <= i; ++j)
        o += to_f32(p[static_cast<size_t>(j - first)]) * at(in.v, j, c);
      out.o[static_cast<size_t>(i * d.D + c)] = bf16(o);
      delta += to_f32(bf16(o)) * at(in.d_o, i, c);
    }
    for (int64_t j = first; j <= i; ++j) {
      const float w = to_f32(p[static_cast<size_t>(j - first)]);
      float dp = 0;
      for (int64_t c = 0; c < d.D; ++c) dp += at(in.d_o, i, c) * at(in.v, j, c);
      const float ds = to_f32(bf16(w * (to_f32(bf16(dp)) - delta))) * scale;
      for (int64_t c = 0; c < d.D; ++c) {
        dv[static_cast<size_t>(j * d.D + c)] += w * at(in.d_o, i, c);
        dk[static_cast<size_t>(j * d.D + c)] += ds * at(in.q, i, c);
        dq[static_cast<size_t>(i * d.D + c)] += ds * at(in.k, j, c);
      }
    }
  }
  for (const float x : dq) out.dq.push_back(bf16(x));
  for (const float x : dk) out.dk.push_back(bf16(x));
  for (const float x : dv) out.dv.push_back(bf16(x));
  return out;
}

TEST(Ska, Bf16IsAtMostTwiceAsWrongAsPlainLoops) {
  const SkaDims d{.B = 1, .T = 150, .H = 1, .D = 32, .left = 60};
  const auto in = random_inputs<bf16>(d, 12);
  const auto got = run(d, in), plain = plain_bf16(d, in);
  // The f32 kernel on the same values is exact here: its own error is three decades smaller.
  const auto cast_up = [](const std::vector<bf16>& x) { return cast<float>(to_double(x)); };
  const Inputs<float> same{cast_up(in.q), cast_up(in.k), cast_up(in.v), cast_up(in.d_o), {}};
  const auto want = run(d, same);
  const auto compare = [](const std::vector<bf16>& ours, const std::vector<bf16>& loops,
                          const std::vector<float>& exact) {
    const double allowed = 2 * relative_rms(to_double(loops), to_double(exact));
    EXPECT_LE(allowed, 0.05);
    EXPECT_TRUE(close(to_double(ours), to_double(exact), allowed));
  };
  EXPECT_TRUE(close(to_double(want.o), reference_forward(d, same).o, kForwardTolerance));
  compare(got.o, plain.o, want.o);
  compare(got.dq, plain.dq, want.dq);
  compare(got.dk, plain.dk, want.dk);
  compare(got.dv, plain.dv, want.dv);
}

TEST(Ska, RejectsBadShapes) {
  const auto error = [](SkaDims d, std::vector<int32_t> starts) -> std::string {
    Cpu exec;
    std::vector<float> x(1000);
    try {
      ska_forward(exec, x.data(), x.data(), x.data(), x.data(), x.data(),
                  starts.empty() ? nullptr : starts.data(), d);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(error({.B = 1, .T = 2, .H = 3, .D = 2, .Hk = 2}, {}).find("H = 3"), std::string::npos);
  EXPECT_NE(error({.B = 1, .T = 2, .H = 1, .D = 2, .Tk = 1}, {}).find("Tk = 1"), std::string::npos);
  EXPECT_NE(error({.B = 1, .T = 2, .H = 1, .D = 2, .Tk = 3}, {0, 0}).find("Tk == T"),
            std::string::npos);
  EXPECT_NE(error({.B = 1, .T = 2, .H = 1, .D = 2}, {0, 2}).find("starts[0, 1] = 2"),
            std::string::npos);
}

}  // namespace
}  // namespace rodimus::testing
