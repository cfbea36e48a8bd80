// The table by op: which op time and cost are charged to, and FLOP counts compared with counting
// one by one.
#include "autograd/profile.h"

#include <gtest/gtest.h>

#include <thread>

#include "autograd/ops.h"

namespace rodimus {
namespace {

using Phase = Profile::Phase;

void work() { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }

const Profile::Row& row(const Profile& profile, const std::string& label, Phase phase) {
  for (const Profile::Row& row : profile.rows())
    if (label_of(row.op) == label && row.phase == phase) return row;
  throw Error("no row " + label);
}

// On a GPU the work of an op may have failed by the end of its scope: that must be an ordinary
// error that does not end the program, even while another exception is in flight.
TEST(Profile, AFailureOfTheWorkIsAnError) {
  Profile profile;
  bool fails = false;
  size_t marks = 0;
  const auto mark = [&] {
    if (fails) throw Error("the device failed");
    ++marks;
  };
  profile.use({mark, [&] { return std::vector<double>(marks - 1); }});
  profile.start();
  const auto scopes = [&](const char* own) {
    const Profile::Scope outer(&profile, {"outer"});
    const Profile::Scope inner(&profile, {"inner"});
    fails = true;
    if (own) throw Error(own);
  };
  const auto message = [&](const char* own) {
    try {
      scopes(own);
    } catch (const Error& error) {
      fails = false;
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message(nullptr), "the device failed");
  EXPECT_EQ(message("the op failed"), "the op failed");
  profile.stop();  // outside of every scope again
}

// Time belongs to the scope that is open while the device works, and is read once.
TEST(Profile, ADeviceIsReadOnceAtTheEnd) {
  double now = 0;
  std::vector<double> marks;
  int reads = 0;
  const auto read = [&] {
    ++reads;
    std::vector<double> seconds;
    for (size_t i = 1; i < marks.size(); ++i) seconds.push_back(marks[i] - marks[i - 1]);
    return seconds;
  };
  Profile profile;
  profile.use({[&] { marks.push_back(now); }, read});
  profile.start();
  now += 1;
  {
    const Profile::Scope outer(&profile, {"outer"});
    now += 2;
    {
      const Profile::Scope inner(&profile, {"inner"});
      now += 4;
    }
    now += 8;
  }
  now += 16;
  EXPECT_EQ(reads, 0);
  profile.stop();
  EXPECT_EQ(reads, 1);
  EXPECT_EQ(profile.rows()[0].seconds, 17);
  EXPECT_EQ(row(profile, "outer", Phase::forward).seconds, 10);
  EXPECT_EQ(row(profile, "inner", Phase::forward).seconds, 4);
}

TEST(Profile, TimeBelongsToTheInnermostScope) {
  Profile profile;
  profile.start();
  const auto begin = std::chrono::steady_clock::now();
  {
    const Profile::Scope outer(&profile, {"outer"});
    {
      const Profile::Scope inner(&profile, {"inner"});
      work();
    }
    work();
  }
  work();
  profile.stop();
  const double all =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_GE(row(profile, "inner", Phase::forward).seconds, 0.002);
  EXPECT_GE(row(profile, "outer", Phase::forward).seconds, 0.002);  // continues after the inner one
  EXPECT_GE(profile.rows()[0].seconds, 0.002);
  EXPECT_EQ(label_of(profile.rows()[0].op), "unaccounted");
  double sum = 0;
  for (const Profile::Row& r : profile.rows()) sum += r.seconds;
  EXPECT_EQ(profile.seconds(), sum);
  // No time is counted twice: the last work() is outside both scopes.
  EXPECT_LE(row(profile, "outer", Phase::forward).seconds +
                row(profile, "inner", Phase::forward).seconds + 0.002,
            all);
}

TEST(Profile, CallsAndCostsAddUpByNameSizesAndPhase) {
  Profile profile;
  profile.start();
  const Op op{"linear", {10, 3}, {20, 5}, 4, 8};
  for (int i = 0; i < 3; ++i) const Profile::Scope scope(&profile, op);
  { const Profile::Scope scope(&profile, op, Phase::backward); }
  { const Profile::Scope scope(&profile, op, Phase::forward_backward); }
  { const Profile::Scope scope(&profile, {"linear", {1, 1}, {}, 4, 9}); }
  profile.set_replaying(true);
  { const Profile::Scope scope(&profile, op); }
  profile.set_replaying(false);
  profile.stop();
  EXPECT_EQ(row(profile, "linear 4 -> 8", Phase::forward).calls, 3);
  EXPECT_EQ(row(profile, "linear 4 -> 8", Phase::forward).cost.flop, 30);
  EXPECT_EQ(row(profile, "linear 4 -> 8", Phase::backward).cost.bytes, 5);
  EXPECT_EQ(row(profile, "linear 4 -> 8", Phase::forward_backward).cost.flop, 30);
  EXPECT_EQ(row(profile, "linear 4 -> 8", Phase::recomputed).cost.flop, 10);
  EXPECT_EQ(row(profile, "linear 4 -> 9", Phase::forward).calls, 1);
  EXPECT_EQ(profile.rows().size(), 6u);
}

TEST(Profile, NoneIsFineAndMisuseIsSaid) {
  { const Profile::Scope scope(nullptr, {"op"}); }
  Profile profile;
  EXPECT_THROW(profile.stop(), Error);
  EXPECT_THROW(Profile::Scope(&profile, {"op"}), Error);
  profile.start();
  const Profile::Scope scope(&profile, {"op"});
  EXPECT_THROW(profile.stop(), Error);
}

TEST(Profile, TheTapeTellsReplayedForwardsAndGradientSums) {
  Profile profile;
  Tape tape;
  Context ctx{Cpu{1}, DType::f32, &tape, &profile};
  const Var x{zeros(ctx.exec, {2, 8}), std::make_shared<GradSlot>()};
  profile.start();
  const Segment twice = [](Context& inner, const std::vector<Var>& in) {
    return std::vector<Var>{swiglu(inner, in[0], in[0])};
  };
  const Var y = recompute(ctx, {x}, twice)[0];
  tape.backward(ctx, {{y.slot, zeros(ctx.exec, {2, 8})}});
  profile.stop();
  for (const Phase phase : {Phase::forward, Phase::recomputed, Phase::backward})
    EXPECT_EQ(row(profile, "swiglu", phase).calls, 1);
  EXPECT_EQ(row(profile, "swiglu", Phase::backward).cost.bytes, 5 * 64);
  EXPECT_EQ(row(profile, "gradient add", Phase::backward).calls, 1);  // of the second operand
}

TEST(Flops, SkaCountsTheVisiblePairs) {
  for (const int64_t left : {int64_t{-1}, int64_t{0}, int64_t{3}, int64_t{40}}) {
    for (const auto& [T, Tk] : {std::pair<int64_t, int64_t>{1, 1}, {1, 9}, {7, 7}, {6, 20}}) {
      int64_t pairs = 0;
      for (int64_t query = Tk - T; query < Tk; ++query)
        for (int64_t key = 0; key <= query; ++key) pairs += left < 0 || query - key <= left;
      EXPECT_EQ(ska_flops(T, Tk, 24, left), 4.0 * 24 * static_cast<double>(pairs))
          << "T " << T << " Tk " << Tk << " left " << left;
    }
  }
}

TEST(Flops, DdtsCountsStatesAndPairsInChunks) {
  constexpr int64_t K = 8, V = 24;
  for (const int64_t T : {1, 63, 64, 65, 200}) {
    double flops = 0;
    for (int64_t t = 0; t < T; ++t) {
      flops += 2.0 * 2 * K * V;                                  // q S and k^T v
      flops += 2.0 * static_cast<double>(t % 64 + 1) * (K + V);  // with earlier tokens of its chunk
    }
    EXPECT_EQ(ddts_flops(T, K, V), flops) << T;
  }
}

}  // namespace
}  // namespace rodimus
