#include "kernels/head_loss.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/reference/head_loss.h"
#include "tests/support/bf16_criterion.h"
#include "tests/support/compare.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"
#include "tests/support/gradient.h"
#include "tests/support/random.h"

namespace rodimus::testing {
namespace {

// A logit is a sum of dim products (eps = 6e-8, growing as sqrt(dim) for sums near 1), and its
// error is the relative error of a weight; exp and the sum over the vocabulary add a few eps.
// Gradients carry that once more through the second product.
constexpr double kTolerance = 2e-6;

std::vector<int32_t> some_targets(int64_t rows, int64_t vocab) {
  std::vector<int32_t> targets;
  for (int64_t r = 0; r < rows; ++r)
    targets.push_back(r % 5 == 3 ? kIgnoreTarget : static_cast<int32_t>(r * 7919 % vocab));
  return targets;
}

TEST(CrossEntropyGolden, LossAndGradient) {
  for (const auto& file : golden_files("ops", "cross_entropy")) {
    const Golden golden(file);
    const auto shape = golden.shape("logits");
    const auto z = golden.f32("logits");
    const auto targets = golden.i32("target");
    ASSERT_EQ(golden.number("ignore_index"), kIgnoreTarget);
    const auto counted = static_cast<double>(
        std::count_if(targets.begin(), targets.end(), [](int32_t t) { return t >= 0; }));
    Array<float> losses(shape[0]), dz(static_cast<int64_t>(z.size()));
    Backend exec = backend(2);
    cross_entropy(exec, losses.data(), dz.data(), in(z).data(), in(targets).data(),
                  static_cast<float>(1 / counted), shape[0], shape[1]);
    double sum = 0;
    for (const float loss : losses.host()) sum += loss;
    const double mean = sum / counted, want = golden.scalar("loss");
    EXPECT_LE(std::abs(mean - want), kTolerance * want);
    EXPECT_TRUE(close(to_double(dz), golden.array("d_logits"), kTolerance));
  }
}

// The plain loops store logits, log-probabilities and gradients.
TEST(CrossEntropyGolden, Bf16IsAtMostTwiceAsWrongAsPlainLoops) {
  for (const auto& file : golden_files("ops", "cross_entropy")) {
    const Golden golden(file);
    const auto shape = golden.shape("logits");
    const auto z = golden.f32("logits");
    const auto targets = golden.i32("target");
    const auto counted = static_cast<float>(
        std::count_if(targets.begin(), targets.end(), [](int32_t t) { return t >= 0; }));
    Array<float> losses_device(shape[0]);
    Array<bf16> dz(static_cast<int64_t>(z.size()));
    Backend exec = backend(2);
    cross_entropy(exec, losses_device.data(), dz.data(), in(z).data(), in(targets).data(),
                  1 / counted, shape[0], shape[1]);
    const std::vector<float> losses = losses_device.host();

    const auto vocab = static_cast<size_t>(shape[1]);
    std::vector<float> plain_dz(z.size());
    double sum = 0, plain_sum = 0;
    for (size_t r = 0; r < targets.size(); ++r) {
      sum += losses[r];
      if (targets[r] == kIgnoreTarget) continue;
      const auto target = static_cast<size_t>(targets[r]);
      const std::vector<float> row = stored({z.begin() + static_cast<ptrdiff_t>(r * vocab),
                                             z.begin() + static_cast<ptrdiff_t>((r + 1) * vocab)});
      const float largest = *std::max_element(row.begin(), row.end());
      float weights = 0;
      for (const float logit : row) weights += std::exp(logit - largest);
      for (size_t j = 0; j < vocab; ++j) {
        const float log_p = stored(row[j] - largest - std::log(weights));
        if (j == target) plain_sum -= log_p;
        plain_dz[r * vocab + j] =
            stored((std::exp(log_p) - static_cast<float>(j == target)) / counted);
      }
    }
    EXPECT_TRUE(at_most_twice_as_wrong(std::vector{sum / counted}, std::vector{plain_sum / counted},
                                       golden.array("loss"), kTolerance));
    EXPECT_TRUE(at_most_twice_as_wrong(to_double(dz), to_double(plain_dz), golden.array("d_logits"),
                                       kTolerance));
  }
}

template <class T>
struct Case {
  std::vector<T> x, w, dx;
  std::vector<int32_t> targets;
  std::vector<float> losses, losses_alone, dw;

  // dw starts at `dw_before`, which must remain part of the sum.
  Case(HeadLossDims d, float scale, float dw_before = 0, int threads = 2)
      : x(cast<T>(normal(d.rows * d.dim, 1))),
        w(cast<T>(normal(d.vocab * d.dim, 2, 1 / std::sqrt(static_cast<double>(d.dim))))),
        dx(x.size(), T(NAN)),
        targets(some_targets(d.rows, d.vocab)),
        losses(targets.size(), NAN),
        losses_alone(targets.size(), NAN),
        dw(w.size(), dw_before) {
    run(scale, d, threads);
  }

  void run(float scale, HeadLossDims d, int threads = 2) {
    Backend exec = backend(threads);
    const Array<T> x_in = x, w_in = w;
    const Array<int32_t> targets_in = targets;
    Array<float> losses_out = losses, alone_out = losses_alone, dw_out = dw;
    Array<T> dx_out = dx;
    head_loss_forward<T>(exec, {.dims = d,
                                .x = x_in.data(),
                                .w = w_in.data(),
                                .targets = targets_in.data(),
                                .losses = alone_out.data()});
    head_loss_forward_backward<T>(exec, {.dims = d,
                                         .x = x_in.data(),
                                         .w = w_in.data(),
                                         .targets = targets_in.data(),
                                         .scale = scale,
                                         .losses = losses_out.data(),
                                         .dx = dx_out.data(),
                                         .dw = dw_out.data()});
    losses_alone = alone_out.host(), losses = losses_out.host();
    dx = dx_out.host(), dw = dw_out.host();
  }
};

std::vector<double> reference_losses(const std::vector<double>& x, const std::vector<double>& w,
                                     const std::vector<int32_t>& targets, HeadLossDims d) {
  std::vector<double> losses(targets.size());
  reference::head_loss(losses.data(), x.data(), w.data(), targets.data(), d);
  return losses;
}

TEST(HeadLoss, GradientsMatchComplexStep) {
  for (const HeadLossDims d : {HeadLossDims{1, 1, 1}, {1, 3, 2}, {5, 7, 13}, {9, 4, 33}}) {
    SCOPED_TRACE(concat(d.rows, " x ", d.dim, " x ", d.vocab));
    constexpr float kScale = 0.37f;
    const Case<float> got(d, kScale);
    const auto x = to_double(got.x), w = to_double(got.w);
    const auto loss = [&](const ComplexVector& xs, const ComplexVector& ws) {
      ComplexVector losses(got.targets.size());
      reference::head_loss(losses.data(), xs.data(), ws.data(), got.targets.data(), d);
      return dot(losses, std::vector<double>(losses.size(), kScale));
    };
    EXPECT_TRUE(close(to_double(got.losses), reference_losses(x, w, got.targets, d), kTolerance));
    EXPECT_TRUE(
        close(to_double(got.dx),
              complex_step(x, [&](const ComplexVector& z) { return loss(z, to_complex(w)); }),
              kTolerance));
    EXPECT_TRUE(
        close(to_double(got.dw),
              complex_step(w, [&](const ComplexVector& z) { return loss(to_complex(x), z); }),
              kTolerance));
  }
}

// dx and dw of the reference in double: weights minus one-hot, then the two products.
void check_against_double(const HeadLossDims& d, const Case<float>& got, double scale,
                          double dw_before) {
  const auto x = to_double(got.x), w = to_double(got.w);
  std::vector<double> dx(x.size()), dw(w.size(), dw_before);
  const auto losses = reference_losses(x, w, got.targets, d);
  for (int64_t r = 0; r < d.rows; ++r) {
    const int32_t target = got.targets[static_cast<size_t>(r)];
    if (target == kIgnoreTarget) continue;
    const double* row = x.data() + r * d.dim;
    const auto logit = [&](int64_t j) {
      double sum = 0;
      for (int64_t c = 0; c < d.dim; ++c) sum += row[c] * w[static_cast<size_t>(j * d.dim + c)];
      return sum;
    };
    const double log_sum = losses[static_cast<size_t>(r)] + logit(target);
    for (int64_t j = 0; j < d.vocab; ++j) {
      const double dz = scale * (std::exp(logit(j) - log_sum) - (j == target));
      for (int64_t c = 0; c < d.dim; ++c) {
        dx[static_cast<size_t>(r * d.dim + c)] += dz * w[static_cast<size_t>(j * d.dim + c)];
        dw[static_cast<size_t>(j * d.dim + c)] += dz * row[c];
      }
    }
  }
  EXPECT_TRUE(close(to_double(got.losses), losses, kTolerance));
  EXPECT_TRUE(close(to_double(got.losses_alone), losses, kTolerance));
  EXPECT_TRUE(close(to_double(got.dx), dx, kTolerance));
  EXPECT_TRUE(close(to_double(got.dw), dw, kTolerance));
}

// More than one block of rows, vocabularies around the sizes of vectors and pieces, and a dw that
// already holds a sum (gradient accumulation).
TEST(HeadLoss, MatchesDoubleAcrossBlocks) {
  for (const HeadLossDims d : {HeadLossDims{1, 5, 7},
                               {2, 16, 4099},
                               {1025, 3, 31},
                               {2100, 6, 40},
                               {3, 33, 2048},
                               {20, 8, 2055}}) {
    static bool ran = false;
    if (kDevice == Device::cuda && d.rows > 1000 && (d.rows < 2100 || ran_before(ran))) continue;
    SCOPED_TRACE(concat(d.rows, " x ", d.dim, " x ", d.vocab));
    const Case<float> got(d, 0.125f, 0.5f);
    check_against_double(d, got, 0.125, 0.5);
  }
}

// dz and dx are the only values stored as bf16; sums are f32. The plain loops also store logits as
// bf16.
TEST(HeadLoss, Bf16IsAtMostTwiceAsWrongAsPlainLoops) {
  const HeadLossDims d{40, 24, 301};
  constexpr float kScale = 1.0f / 32;
  const Case<bf16> got(d, kScale);
  Case<float> exact(d, kScale);
  for (size_t i = 0; i < exact.x.size(); ++i) exact.x[i] = to_f32(got.x[i]);
  for (size_t i = 0; i < exact.w.size(); ++i) exact.w[i] = to_f32(got.w[i]);
  std::fill(exact.dw.begin(), exact.dw.end(), 0.0f);
  exact.run(kScale, d);

  std::vector<float> losses, dx, dw(exact.w.size());
  for (int64_t r = 0; r < d.rows; ++r) {
    std::vector<float> z, row_dx(static_cast<size_t>(d.dim));
    float largest = -INFINITY, sum = 0;
    const float* x = exact.x.data() + r * d.dim;
    for (int64_t j = 0; j < d.vocab; ++j) {
      float logit = 0;
      for (int64_t c = 0; c < d.dim; ++c)
        logit += x[c] * exact.w[static_cast<size_t>(j * d.dim + c)];
      z.push_back(to_f32(bf16(logit)));
      largest = std::max(largest, z.back());
    }
    for (const float logit : z) sum += std::exp(logit - largest);
    const int32_t target = exact.targets[static_cast<size_t>(r)];
    const bool counts = target != kIgnoreTarget;
    losses.push_back(counts ? largest + std::log(sum) - z[static_cast<size_t>(target)] : 0.0f);
    for (int64_t j = 0; counts && j < d.vocab; ++j) {
      const float p = std::exp(z[static_cast<size_t>(j)] - largest) / sum;
      const float dz = to_f32(bf16(kScale * (p - static_cast<float>(j == target))));
      for (int64_t c = 0; c < d.dim; ++c) {
        row_dx[static_cast<size_t>(c)] += dz * exact.w[static_cast<size_t>(j * d.dim + c)];
        dw[static_cast<size_t>(j * d.dim + c)] += dz * x[c];
      }
    }
    for (const float value : row_dx) dx.push_back(to_f32(bf16(value)));
  }
  const auto compare = [](const std::vector<double>& ours, const std::vector<float>& loops,
                          const std::vector<float>& want) {
    const double allowed = 2 * relative_rms(to_double(loops), to_double(want));
    EXPECT_LE(allowed, 0.02);
    EXPECT_TRUE(close(ours, to_double(want), allowed));
  };
  compare(to_double(got.losses), losses, exact.losses);
  compare(to_double(got.dx), dx, exact.dx);
  compare(to_double(got.dw), dw, exact.dw);
}

TEST(HeadLoss, IgnoredRowsLeaveNothing) {
  const HeadLossDims d{11, 6, 19};
  const Case<float> got(d, 1.0f);
  for (int64_t r = 0; r < d.rows; ++r) {
    const bool ignored = got.targets[static_cast<size_t>(r)] == kIgnoreTarget;
    EXPECT_EQ(got.losses[static_cast<size_t>(r)] == 0, ignored);
    for (int64_t c = 0; c < d.dim; ++c)
      EXPECT_EQ(got.dx[static_cast<size_t>(r * d.dim + c)] == 0, ignored);
  }
}

TEST(HeadLoss, CrossEntropyBitsDoNotDependOnThreads) {
  constexpr int64_t kRows = kDevice == Device::cuda ? 3 : 37, kVocab = 3001;
  const auto z = cast<float>(normal(kRows * kVocab, 4, 3));
  const auto targets = some_targets(kRows, kVocab);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    Array<float> out(kRows + kRows * kVocab);
    Backend exec = backend(threads);
    cross_entropy(exec, out.data(), out.data() + kRows, in(z).data(), in(targets).data(), 0.1f,
                  kRows, kVocab);
    results.push_back(out.host());
  }
  EXPECT_EQ(std::memcmp(results[0].data(), results[1].data(), results[0].size() * 4), 0);
  EXPECT_EQ(std::memcmp(results[0].data(), results[2].data(), results[0].size() * 4), 0);
}

// Logits of any size: accurate to f32 around +-1e4; -inf gives a weight of zero; NaN is never lost.
TEST(HeadLoss, ExtremeLogits) {
  constexpr int64_t kVocab = 2100;
  Backend exec = backend();
  const std::vector<int32_t> target = {2050};
  std::vector<float> z(kVocab, -INFINITY), dz;
  float loss = NAN;
  const auto run = [&](const std::vector<float>& logits) {
    Array<float> loss_out(1), dz_out(kVocab);
    cross_entropy(exec, loss_out.data(), dz_out.data(), in(logits).data(), in(target).data(), 1.0f,
                  1, kVocab);
    loss = loss_out.host()[0], dz = dz_out.host();
  };
  z[2] = 1e4f, z[2050] = 1e4f - 1;
  run(z);
  EXPECT_NEAR(loss, 1 + std::log1p(std::exp(-1.0)), 1e-6);
  EXPECT_NEAR(dz[2], 1 / (1 + std::exp(-1.0)), 1e-6);
  EXPECT_NEAR(dz[2050], 1 / (1 + std::exp(1.0)) - 1, 1e-6);
  EXPECT_EQ(dz[0], 0);
  z[2] = 1e4f - 2;  // now the later piece has the largest, so the earlier sum must shrink
  run(z);
  EXPECT_NEAR(loss, std::log1p(std::exp(-1.0)), 1e-6);
  z.assign(kVocab, -INFINITY), z[2050] = 3;  // the first piece is all -inf
  run(z);
  EXPECT_EQ(loss, 0);
  for (const size_t at : {0, 9, 2047, 2050, 2099}) {
    auto bad = cast<float>(normal(kVocab, 5));
    bad[at] = NAN;
    run(bad);
    EXPECT_TRUE(std::isnan(loss) && std::isnan(dz[7])) << at;
  }
}

TEST(HeadLoss, NamesTheBadTarget) {
  const std::vector<float> x(6, 1.0f), w(10, 1.0f);
  for (const int32_t bad : {5, -1, -99}) {
    const std::vector<int32_t> targets = {0, kIgnoreTarget, bad};
    Backend exec = backend();
    Array<float> losses(3, 42.0f);
    try {
      head_loss_forward<float>(exec, {.dims = {.rows = 3, .dim = 2, .vocab = 5},
                                      .x = in(x).data(),
                                      .w = in(w).data(),
                                      .targets = in(targets).data(),
                                      .losses = losses.data()});
      wait(exec);  // a GPU reports it when the host waits
      ADD_FAILURE() << "accepted " << bad;
    } catch (const Error& error) {
      const std::string text = error.what();
      for (const std::string& part : {concat("target ", bad), concat("row 2"), concat("vocab 5")})
        EXPECT_NE(text.find(part), std::string::npos) << text;
    }
    if (kDevice == Device::cpu) {
      EXPECT_EQ(losses.host()[0], 42.0f);  // nothing was computed
    } else {
      EXPECT_EQ(losses.host()[2], 0.0f);  // as without a target
    }
  }
}

// Rows are counted over all blocks.
TEST(HeadLoss, NamesTheBadTargetOfALaterBlock) {
  static bool ran = false;
  if (ran_before(ran)) return;
  std::vector<int32_t> targets(2060, kIgnoreTarget);
  targets[2055] = 7, targets[2058] = -3;
  const auto rows = static_cast<int64_t>(targets.size());
  Backend exec = backend(2);
  Array<float> losses(rows);
  try {
    head_loss_forward<float>(exec, {.dims = {.rows = rows, .dim = 1, .vocab = 4},
                                    .x = Array<float>(rows, 1.0f).data(),
                                    .w = Array<float>(4, 1.0f).data(),
                                    .targets = in(targets).data(),
                                    .losses = losses.data()});
    wait(exec);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("target 7 in row 2055"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace rodimus::testing
