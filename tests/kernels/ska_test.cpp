#include "kernels/ska.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>

#include "kernels/reference/ska.h"
#include "tests/kernels/ska_case.h"
#include "tests/support/bf16_criterion.h"
#include "tests/support/golden.h"

namespace rodimus::testing {
namespace {

constexpr bool kGpu = kDevice == Device::cuda;  // the emulator is slow

// Scores up to ~5 are sums of D products, each rounded (eps = 6e-8, growing as sqrt(D)), and an
// error in a score is a relative error of its weight: 5 sqrt(64) eps / sqrt(3) = 1.4e-6. The
// gradients multiply by one more weight and subtract delta, which loses about one bit.
constexpr double kForwardTolerance = 2e-6, kBackwardTolerance = 5e-6;

template <class T>
SkaResults<T> run(const SkaDims& d, const SkaInputs<T>& in) {
  return run_ska(backend(2), d, in);
}
template <class T>
SkaResults<double> truth(const SkaDims& d, const SkaInputs<T>& in) {
  return plain_ska<double>(d, in, [](double x) { return x; });
}

// If a query sees only itself, p = 1 and ds = d_o v - delta is a difference of equal sums: zero up
// to the rounding of terms as large as d_o.
::testing::AssertionResult close_or_cancelled(const std::vector<float>& got,
                                              const std::vector<double>& want,
                                              const std::vector<float>& d_o) {
  if (std::any_of(want.begin(), want.end(), [](double x) { return std::fabs(x) > 1e-12; }))
    return close(to_double(got), want, kBackwardTolerance);
  std::vector<double> shifted = to_double(d_o), base = shifted;
  for (size_t i = 0; i < got.size(); ++i) shifted.at(i) += got[i];
  return close(shifted, base, kBackwardTolerance);
}

void expect_close(const SkaResults<float>& got, const SkaResults<double>& want,
                  const SkaInputs<float>& in) {
  EXPECT_TRUE(close(to_double(got.o), want.o, kForwardTolerance));
  EXPECT_TRUE(close_or_cancelled(got.dq, want.dq, in.d_o));
  EXPECT_TRUE(close_or_cancelled(got.dk, want.dk, in.d_o));
  EXPECT_TRUE(close(to_double(got.dv), want.dv, kBackwardTolerance));
}

// Compares with plain loops in double; the yardstick for bf16 is the error of plain loops over bf16
// arrays.
template <class T>
void check_inputs(const SkaDims& d, const SkaInputs<T>& in) {
  const auto got = run(d, in);
  const auto want = truth(d, in);
  EXPECT_TRUE(close(to_double(got.lse), to_double(want.lse), kForwardTolerance));
  if constexpr (std::is_same_v<T, float>) {
    expect_close(got, want, in);
  } else {
    const auto plain = plain_ska<float>(d, in, [](float x) { return stored(x); });
    const auto expect = [](const std::vector<bf16>& ours, const std::vector<float>& loops,
                           const std::vector<double>& exact) {
      EXPECT_TRUE(
          at_most_twice_as_wrong(to_double(ours), to_double(loops), exact, kBackwardTolerance));
    };
    expect(got.o, plain.o, want.o);
    expect(got.dv, plain.dv, want.dv);
    // For a query that sees only itself, ds is nothing but the rounding of o.
    if (d.T > 1 && d.left != 0) {
      expect(got.dq, plain.dq, want.dq);
      expect(got.dk, plain.dk, want.dk);
    }
  }
}
template <class T>
void check(const SkaDims& d, uint64_t seed, const std::vector<int32_t>& starts = {}) {
  SCOPED_TRACE(concat(name_of(DTypeOf<T>::value), " B ", d.B, " T ", d.T, " Tk ", d.Tk, " H ", d.H,
                      " D ", d.D, " Hk ", d.Hk, " Hv ", d.Hv, " left ", d.left));
  auto in = random_ska<T>(d, seed);
  in.starts = starts;
  check_inputs(d, in);
}
// Cases that are the same for both types: the emulator, slow with f32, runs only bf16.
void check_sizes(const SkaDims& d, uint64_t seed, const std::vector<int32_t>& starts = {}) {
  if (!kGpu) check<float>(d, seed, starts);
  check<bf16>(d, seed, starts);
}
using QuickType = std::conditional_t<kGpu, bf16, float>;

TEST(SkaGolden, ForwardAndGradients) {
  static bool ran = false;
  if (ran_before(ran)) return;
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
    const SkaInputs<float> in{
        golden.f32("q"), golden.f32("k"), golden.f32("v"), golden.f32("d_out"), {}};
    const SkaResults<double> want{
        golden.array("out"), golden.array("d_q"), golden.array("d_k"), golden.array("d_v"), {}};
    expect_close(run(dims, in), want, in);
    const auto narrow = [](const std::vector<float>& x) { return cast<bf16>(to_double(x)); };
    check_inputs(dims,
                 SkaInputs<bf16>{narrow(in.q), narrow(in.k), narrow(in.v), narrow(in.d_o), {}});
  }
}

// Checks the plain loops that backends are compared with: o and lse match the reference, gradients
// the derivatives of <d_o, o> by complex step.
TEST(Ska, PlainLoopsAreTheSpecification) {
  using Complex = std::complex<double>;
  const SkaDims cases[] = {{.B = 2, .T = 9, .H = 6, .D = 5, .Hk = 2, .Hv = 3, .left = 4},
                           {.B = 1, .T = 6, .H = 2, .D = 4, .Hv = 2, .Tk = 11, .left = 3},
                           {.B = 1, .T = 7, .H = 2, .D = 3, .Hv = 2}};
  for (const SkaDims& d : cases) {
    auto in = random_ska<float>(d, 77);
    if (d.T == 7) in.starts = {0, 0, 2, 2, 2, 5, 5};
    const auto plain = truth(d, in);
    std::vector<Complex> z, o(in.q.size()), lse(static_cast<size_t>(d.B * d.H * d.T));
    std::vector<double> gradient, want;
    for (const auto* input : {&in.q, &in.k, &in.v}) z.insert(z.end(), input->begin(), input->end());
    for (const auto* part : {&plain.dq, &plain.dk, &plain.dv})
      gradient.insert(gradient.end(), part->begin(), part->end());
    const auto reference = [&] {
      reference::ska(o.data(), lse.data(), z.data(), z.data() + in.q.size(),
                     z.data() + in.q.size() + in.k.size(),
                     in.starts.empty() ? nullptr : in.starts.data(), d);
    };
    for (Complex& x : z) {
      x.imag(1e-100);
      reference();
      double slope = 0;
      for (size_t i = 0; i < o.size(); ++i) slope += in.d_o[i] * o[i].imag() * 1e100;
      want.push_back(slope);
      x.imag(0);
    }
    EXPECT_TRUE(close(gradient, want, 1e-13));  // sums of about ten doubles
    reference();
    std::vector<double> o_want, lse_want;
    for (const Complex& x : o) o_want.push_back(x.real());
    for (const Complex& x : lse) lse_want.push_back(x.real());
    EXPECT_TRUE(close(plain.o, o_want, 1e-13));
    EXPECT_TRUE(close(to_double(plain.lse), lse_want, 1e-7));  // a rounding to float
  }
}

// Every instance of the kernels, tails of tiles, rows and heads, several key and value heads.
TEST(Ska, OddSizes) {
  const SkaDims of_each_type[] = {
      {.B = 1, .T = 1, .H = 1, .D = 1},
      {.B = 2, .T = 5, .H = 3, .D = 3, .Hv = 3},
      {.B = 1, .T = 7, .H = 2, .D = 17, .Hk = 2, .Hv = 1, .left = 2},
      {.B = 1, .T = 9, .H = 4, .D = 5, .Hk = 2, .Hv = 4, .left = 0},
      {.B = 1, .T = 35, .H = 1, .D = 40, .left = 20},
      {.B = 1, .T = 17, .H = 2, .D = 128, .Hv = 2, .left = 11},
      {.B = 1, .T = 5, .H = 3, .D = 256, .Hv = 3},
  };
  const SkaDims sizes[] = {
      {.B = 1, .T = 18, .H = 17, .D = 8, .Hv = 17, .left = 9},          // groups of heads
      {.B = 1, .T = 18, .H = 6, .D = 20, .Hk = 2, .Hv = 3, .left = 9},  // neither divides
      {.B = 1, .T = 17, .H = 4, .D = 16, .Hk = 4, .Hv = 2},             // values shared more
      {.B = 1, .T = 18, .H = 9, .D = 128, .Hv = 9, .left = 11},
      {.B = 1, .T = 18, .H = 2, .D = 136, .Hv = 1, .left = 9},
  };
  const SkaDims large[] = {
      {.B = 1, .T = 101, .H = 2, .D = 33, .Hk = 1, .Hv = 2, .left = 50},
      {.B = 1, .T = 200, .H = 1, .D = 8},
      {.B = 1, .T = 700, .H = 2, .D = 8, .Hv = 2, .left = 40},      // two segments on the CPU
      {.B = 1, .T = 600, .H = 1, .D = 4, .Tk = 650, .left = 100}};  // two, keys shared by both
  uint64_t seed = 10;
  for (const SkaDims& d : of_each_type) check<float>(d, seed += 10), check<bf16>(d, seed);
  for (const SkaDims& d : sizes) check_sizes(d, seed += 10);
  if (kGpu) return;
  for (const SkaDims& d : large) check_sizes(d, seed += 10);
}

TEST(Ska, LengthsAroundTiles) {
  if (kGpu) {
    for (const int64_t T : {31, 32, 33, 65})
      check_sizes({.B = 1, .T = T, .H = 2, .D = 16, .Hv = 2}, 3);
    // Two tiles of queries: with two key heads and two batch entries, and when a block has 64.
    check_sizes({.B = 2, .T = 130, .H = 6, .D = 8, .Hk = 2, .Hv = 6, .left = 15}, 3);
    check<float>({.B = 1, .T = 66, .H = 2, .D = 8, .left = 15}, 3);
    // Documents that begin before, at and after tile borders.
    std::vector<int32_t> starts(130);
    for (const int32_t begin : {7, 100, 128, 129})
      std::fill(starts.begin() + begin, starts.end(), begin);
    check_sizes({.B = 1, .T = 130, .H = 4, .D = 8, .Hv = 4, .left = 40}, 3, starts);
    return;
  }
  for (const int64_t T : {1, 2, 4, 5, 47, 48, 49, 63, 64, 65, 95, 96, 97, 300})
    for (const int64_t left : {-1, 0, 63})
      check_sizes({.B = 1, .T = T, .H = 2, .D = 16, .Hv = 2, .left = left}, 3);
}

// Few queries with many keys: on the GPU the keys are cut into pieces.
TEST(Ska, CachedKeys) {
  check<float>({.B = 1, .T = 2, .H = 2, .D = 8, .Hv = 2, .Tk = 70, .left = 50}, 5);
  check_sizes({.B = 2, .T = 3, .H = 4, .D = 10, .Hk = 2, .Hv = 4, .Tk = 75, .left = 37}, 6);
  check_sizes({.B = 1, .T = 1, .H = 3, .D = 16, .Hv = 3, .Tk = 101}, 7);
  check_sizes({.B = 1, .T = 2, .H = 2, .D = 256, .Hv = 2, .Tk = 67}, 8);
  check_sizes({.B = 1, .T = 20, .H = 1, .D = 8, .Tk = 70, .left = 33}, 9);
  if (kGpu) return;
  check_sizes({.B = 1, .T = 30, .H = 2, .D = 8, .Hv = 2, .Tk = 207, .left = 70}, 9);
  check_sizes({.B = 2, .T = 2, .H = 4, .D = 10, .Hk = 2, .Hv = 4, .Tk = 300, .left = 170}, 6);
  check_sizes({.B = 2, .T = 1, .H = 6, .D = 33, .Hk = 3, .Hv = 2, .Tk = 129, .left = 64}, 7);
}

TEST(Ska, DocumentStarts) {
  const SkaDims d{.B = 2, .T = 50, .H = 2, .D = 16, .Hv = 2, .left = 29};
  std::vector<int32_t> starts;
  for (const auto& lengths : {std::vector<int>{1, 35, 3, 11}, {20, 30}}) {
    for (int first = 0; const int length : lengths) {
      starts.insert(starts.end(), static_cast<size_t>(length), first);
      first += length;
    }
  }
  check_sizes(d, 4, starts);
  if (!kGpu) check_sizes({.B = 2, .T = 2, .H = 2, .D = 16, .Hv = 2}, 4, {0, 0, 0, 1});
}

// The last of W - 1, W and W + 1 keys sees exactly min(count, W) of them.
TEST(Ska, WindowIsExact) {
  const auto windows =
      kGpu ? std::vector<int64_t>{1, 17} : std::vector<int64_t>{1, 2, 6, 48, 64, 130};
  for (const int64_t window : windows) {
    for (const int64_t keys : {window - 1, window, window + 1}) {
      if (keys == 0) continue;
      for (const int64_t T : {keys, int64_t{1}}) {
        const SkaDims d{.B = 1, .T = T, .H = 1, .D = 8, .Tk = keys, .left = window - 1};
        const auto in = random_ska<QuickType>(d, static_cast<uint64_t>(keys));
        const auto before = run(d, in);
        for (const int64_t distance : {keys - 1, window - 1, window}) {
          if (distance < 0 || distance >= keys) continue;
          SCOPED_TRACE(concat("window ", window, " keys ", keys, " T ", T, " distance ", distance));
          auto changed = in;
          const size_t at = static_cast<size_t>((keys - 1 - distance) * d.D);
          for (size_t i = 0; i < 8; ++i) changed.v[at + i] = QuickType(100.0f);
          const auto after = run(d, changed);
          const auto last = [&](const SkaResults<QuickType>& r) {
            return to_double(std::vector<QuickType>(r.o.end() - d.D, r.o.end()));
          };
          EXPECT_EQ(last(before) != last(after), distance < window);
        }
      }
    }
  }
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}
TEST(Ska, BitsDoNotDependOnThreads) {
  std::vector<SkaDims> cases = {{.B = 1, .T = 20, .H = 4, .D = 20, .Hk = 2, .Hv = 4, .left = 9}};
  if (!kGpu) {
    cases.push_back({.B = 2, .T = 333, .H = 4, .D = 20, .Hk = 2, .Hv = 4, .left = 100});
    cases.push_back({.B = 1, .T = 900, .H = 2, .D = 8, .Hv = 2, .left = 64});
    cases.push_back({.B = 2, .T = 1, .H = 4, .D = 64, .Hv = 4, .Tk = 300, .left = 200});
  }
  for (const SkaDims& d : cases) {
    const auto in = random_ska<QuickType>(d, 6);
    const auto one = run_ska(backend(1), d, in);
    for (const int threads : {2, 3}) {
      const auto many = run_ska(backend(threads), d, in);
      EXPECT_TRUE(same_bits(one.o, many.o) && same_bits(one.lse, many.lse));
      EXPECT_TRUE(same_bits(one.dq, many.dq) && same_bits(one.dk, many.dk) &&
                  same_bits(one.dv, many.dv));
    }
  }
}

template <class T>
void check_nan(std::initializer_list<int64_t> lengths) {
  for (const int64_t length : lengths) {
    const SkaDims d{.B = 1, .T = length, .H = 2, .D = 6, .Hv = 2, .left = 20};
    const int64_t bad = d.T / 2;
    const auto is_nan = [](T x) { return std::isnan(to_f32(x)); };
    for (const char input : {'q', 'k', 'v'}) {
      SCOPED_TRACE(concat("T ", d.T, " NaN in ", input));
      auto in = random_ska<T>(d, 8);
      auto& x = input == 'q' ? in.q : input == 'k' ? in.k : in.v;
      const int64_t heads = input == 'k' ? 1 : 2;
      x[static_cast<size_t>(bad * heads * d.D)] = T(NAN);  // head 0
      const auto got = run(d, in);
      for (int64_t i = bad; i < (input == 'q' ? bad + 1 : std::min(d.T, bad + 21)); ++i)
        EXPECT_TRUE(is_nan(got.o[static_cast<size_t>(i * d.H * d.D)])) << "query " << i;
      EXPECT_TRUE(is_nan(got.dq[static_cast<size_t>(bad * d.H * d.D)]));
      EXPECT_TRUE(is_nan(got.dk[static_cast<size_t>(bad * d.D)]));
    }
  }
}
TEST(Ska, NanReachesAllThatSeeIt) {
  check_nan<float>({2, 3, kGpu ? 5 : 45});
  check_nan<bf16>({2, 3, 45});
  // Decoding: in one of several parts of the keys.
  const SkaDims d{.B = 1, .T = 1, .H = 2, .D = 6, .Tk = kGpu ? 40 : 200};
  for (const char input : {'k', 'v'}) {
    auto in = random_ska<bf16>(d, 8);
    auto& x = input == 'k' ? in.k : in.v;
    x[static_cast<size_t>(5 * d.D)] = bf16(NAN);
    const auto got = run(d, in);
    for (int64_t h = 0; h < d.H; ++h)
      EXPECT_TRUE(std::isnan(to_f32(got.o[static_cast<size_t>(h * d.D)])))
          << input << " head " << h;
  }
}

// Keys that no query sees may hold anything, like the unwritten end of a cache.
TEST(Ska, UnseenKeysDoNotMatter) {
  for (const int64_t T : {2, 3}) {
    const SkaDims d{.B = 1, .T = T, .H = 2, .D = 16, .Hv = 2, .Tk = 90, .left = 20};
    const int64_t unseen = d.Tk - T - d.left;
    auto in = random_ska<bf16>(d, 8);
    const auto clean = run(d, in);
    std::fill_n(in.k.begin(), unseen * 16, bf16(NAN));
    std::fill_n(in.v.begin(), unseen * 32, bf16(NAN));
    const auto got = run(d, in);
    EXPECT_TRUE(same_bits(got.o, clean.o) && same_bits(got.dq, clean.dq));
    for (const auto* gradient : {&got.dk, &got.dv})
      for (const bf16 x : *gradient) EXPECT_TRUE(std::isfinite(to_f32(x)));
  }
}

// In decoding, keys 0 to 63 are a separate part.
TEST(Ska, KeysInfinitelyFarAwayWeighNothing) {
  const SkaDims d{.B = 1, .T = 1, .H = 1, .D = 4, .Tk = kGpu ? 40 : 200};
  auto in = random_ska<float>(d, 9);
  std::fill(in.q.begin(), in.q.end(), 1.0f);
  const int64_t far = kGpu ? 20 : 70;
  std::fill_n(in.k.begin(), far * d.D, -INFINITY);
  auto near = d;
  near.left = d.Tk - far - 1;
  const auto got = run(d, in);
  EXPECT_TRUE(close(to_double(got.o), truth(near, in).o, 1e-6));
}

TEST(Ska, HugeScoresNeitherOverflowNorVanish) {
  for (const SkaDims& d : {SkaDims{.B = 1, .T = kGpu ? 40 : 120, .H = 1, .D = 4},
                           SkaDims{.B = 1, .T = 1, .H = 1, .D = 4, .Tk = kGpu ? 40 : 300}}) {
    auto in = random_ska<float>(d, 9);
    for (float& x : in.q) x *= 300;
    for (float& x : in.k) x *= 300;
    const auto got = run(d, in);
    // Scores near 2e5 have an error of 2e5 * 2 eps, which is the relative error of the weights.
    EXPECT_TRUE(close(to_double(got.o), truth(d, in).o, 2e5 * 2 * 0x1p-24));
    for (const auto* gradient : {&got.dq, &got.dk, &got.dv})
      for (const float x : *gradient) EXPECT_TRUE(std::isfinite(x));
  }
}

TEST(Ska, RejectsBadShapes) {
  const auto error = [](SkaDims d, std::vector<int32_t> starts) -> std::string {
    Backend exec = backend();
    std::vector<float> x(1000);
    try {
      ska_forward<float>(exec, {.dims = d,
                                .q = x.data(),
                                .k = x.data(),
                                .v = x.data(),
                                .starts = starts.empty() ? nullptr : starts.data(),
                                .o = x.data(),
                                .lse = x.data()});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const auto says = [&](SkaDims d, std::vector<int32_t> starts, const char* text) {
    return error(d, std::move(starts)).find(text) != std::string::npos;
  };
  EXPECT_TRUE(says({.B = 1, .T = 2, .H = 3, .D = 2, .Hk = 2}, {}, "H = 3"));
  EXPECT_TRUE(says({.B = 1, .T = 2, .H = 1, .D = 2, .Tk = 1}, {}, "Tk = 1"));
  EXPECT_TRUE(says({.B = 1, .T = 2, .H = 1, .D = 2, .Tk = 3}, {0, 0}, "Tk == T"));
  if (kGpu) {
    EXPECT_TRUE(says({.B = 1, .T = 2, .H = 1, .D = 257}, {}, "D = 257"));
  } else {  // the GPU does not check starts
    EXPECT_TRUE(says({.B = 1, .T = 2, .H = 1, .D = 2}, {0, 2}, "starts[0, 1] = 2"));
  }
}

}  // namespace
}  // namespace rodimus::testing
