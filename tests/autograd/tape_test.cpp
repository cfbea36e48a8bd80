// The tape itself: order, accumulation, skipping, freeing, recomputation. Ops are tested by the
// model's golden files.
#include "autograd/tape.h"

#include "autograd/ops.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"

namespace rodimus::testing {
namespace {

Tensor filled(std::vector<float> values) {
  Tensor x = Tensor::empty({static_cast<int64_t>(values.size())}, DType::f32);
  std::copy(values.begin(), values.end(), x.data<float>());
  return x;
}

std::vector<float> read(const Tensor& x) { return {x.data<float>(), x.data<float>() + x.numel()}; }

// y = factor * x, the smallest op: enough to watch the tape.
Var scale(Context& ctx, const Var& x, float factor, std::vector<std::string>* log = nullptr,
          std::string name = "") {
  Tensor y = empty_like(x.value);
  for (int64_t i = 0; i < y.numel(); ++i) y.data<float>()[i] = factor * x.value.data<float>()[i];
  Var out = make_output(ctx, y);
  if (ctx.tape) {
    ctx.tape->record({"scale"}, {out.slot},
                     [slot = x.slot, factor, log, name](Context& inner, std::span<Tensor> dy) {
                       if (log) log->push_back(name);
                       Tensor dx = empty_like(dy[0]);
                       for (int64_t i = 0; i < dx.numel(); ++i)
                         dx.data<float>()[i] = factor * dy[0].data<float>()[i];
                       if (slot) slot->add(inner, dx);
                     });
  }
  return out;
}

struct TapeTest : ::testing::Test {
  Tape tape;
  Context ctx{Cpu{1}, DType::f32, &tape};
  Var leaf{filled({1, 2}), std::make_shared<GradSlot>()};
};

TEST_F(TapeTest, RunsInReverseAndSumsContributions) {
  std::vector<std::string> log;
  const Var a = scale(ctx, leaf, 2, &log, "a");
  const Var b = scale(ctx, a, 3, &log, "b"), c = scale(ctx, a, 5, &log, "c");
  tape.backward(ctx, {{b.slot, filled({1, 1})}, {c.slot, filled({1, 10})}});
  EXPECT_EQ(log, (std::vector<std::string>{"c", "b", "a"}));
  EXPECT_EQ(read(leaf.slot->take()), (std::vector<float>{16, 106}));  // 2 * (3 + 5), 2 * (3 + 50)
  EXPECT_EQ(tape.size(), 0u);
}

TEST_F(TapeTest, SkipsWhatGotNoGradient) {
  std::vector<std::string> log;
  const Var used = scale(ctx, leaf, 2, &log, "used");
  scale(ctx, leaf, 3, &log, "unused");
  tape.backward(ctx, {{used.slot, filled({1, 1})}});
  EXPECT_EQ(log, std::vector<std::string>{"used"});
}

TEST_F(TapeTest, FreesEachStepBeforeTheNext) {
  auto captured = std::make_shared<int>(0);
  const std::weak_ptr<int> alive = captured;
  bool freed_in_time = false;
  const Var first = make_output(ctx, filled({0}));
  tape.record({"first"}, {first.slot}, [&freed_in_time, alive](Context&, std::span<Tensor>) {
    freed_in_time = alive.expired();
  });
  const Var second = make_output(ctx, filled({0}));
  tape.record({"second"}, {second.slot},
              [captured, slot = first.slot](Context& inner, std::span<Tensor> dy) {
                slot->add(inner, dy[0]);
              });
  captured.reset();
  tape.backward(ctx, {{second.slot, filled({1})}});
  EXPECT_TRUE(freed_in_time);
}

TEST_F(TapeTest, MarksRunWhenEverythingLaterIsDone) {
  std::vector<std::string> log;
  const Var a = scale(ctx, leaf, 2, &log, "a");
  tape.mark([&log](Context&) { log.push_back("mark"); });
  const Var b = scale(ctx, a, 2, &log, "b");
  tape.backward(ctx, {{b.slot, filled({1, 1})}});
  EXPECT_EQ(log, (std::vector<std::string>{"b", "mark", "a"}));
}

TEST_F(TapeTest, BoundSlotsAddToTheirBuffer) {
  const Tensor buffer = filled({100, 200});
  leaf.slot = std::make_shared<GradSlot>(buffer);
  const Var a = scale(ctx, leaf, 2);
  tape.backward(ctx, {{a.slot, filled({1, 1})}});
  EXPECT_EQ(read(buffer), (std::vector<float>{102, 202}));
  EXPECT_EQ(leaf.slot->target(ctx, {2}, DType::f32).beta, 1);
  EXPECT_THROW(leaf.slot->take(), Error);
}

TEST_F(TapeTest, RejectsAContributionOfAnotherShape) {
  leaf.slot->add(ctx, filled({1, 2}));
  EXPECT_THROW(leaf.slot->add(ctx, filled({1, 2, 3})), Error);
}

TEST_F(TapeTest, RecomputeGivesTheSameGradientAndSavesOnlyInputs) {
  int runs = 0, replays = 0;
  const Segment segment = [&](Context& inner, const std::vector<Var>& in) {
    ++runs;
    replays += inner.replay ? 1 : 0;
    return std::vector<Var>{scale(inner, scale(inner, in[0], 2), 3)};
  };
  const std::vector<Var> out = recompute(ctx, {leaf}, segment);
  EXPECT_EQ(read(out[0].value), (std::vector<float>{6, 12}));
  EXPECT_EQ(tape.size(), 1u);
  tape.backward(ctx, {{out[0].slot, filled({1, 2})}});
  EXPECT_EQ(read(leaf.slot->take()), (std::vector<float>{6, 12}));
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(replays, 1);
}

TEST(Tensor, ViewsShareBytesAndCheckTheirBounds) {
  Tensor x = filled({0, 1, 2, 3, 4, 5}).view({3, 2});
  Tensor last = x.rows(2, 3);
  EXPECT_EQ(last.shape(), (Shape{1, 2}));
  last.data<float>()[0] = 40;
  EXPECT_EQ(x.data<float>()[4], 40);
  EXPECT_EQ(x.slice(1, {2}).data<float>()[0], 1);
  EXPECT_EQ(x.dim(-1), 2);
  EXPECT_THROW(x.view({4}), Error);
  EXPECT_THROW(x.rows(2, 4), Error);
  EXPECT_THROW(x.slice(5, {2}), Error);
  EXPECT_THROW((void)x.dim(2), Error);
  EXPECT_THROW((void)x.data<bf16>(), Error);
  EXPECT_THROW((void)Tensor().data<float>(), Error);
}

TEST(Tensor, SizesThatOverflowAreErrors) {
  constexpr int64_t kHuge = INT64_C(1) << 62;
  EXPECT_THROW(numel_of({kHuge, 2}), Error);
  EXPECT_THROW(numel_of({kHuge, 4, 0}), Error);
  EXPECT_THROW(Tensor::empty({kHuge, 4}, DType::f32), Error);      // 2^64 elements
  EXPECT_THROW(Tensor::empty({kHuge / 2, 1}, DType::f32), Error);  // 2^63 bytes
}

// Two projections of one input, parts of one weight: the case where GEMM writes straight into
// gradients.
TEST_F(TapeTest, LinearPartsSumIntoInputAndWeight) {
  const auto make = [](Shape shape, uint64_t seed) {
    Tensor x = Tensor::empty(std::move(shape), DType::f32);
    const auto values = normal(x.numel(), seed);
    std::copy(values.begin(), values.end(), x.data<float>());
    return x;
  };
  const Tensor dweight = zeros(ctx.exec, {5, 3});
  const Var x{make({4, 3}, 1), std::make_shared<GradSlot>()},
      w{make({5, 3}, 2), std::make_shared<GradSlot>(dweight)};
  const Var top = linear(ctx, x, w, {0, 2}), bottom = linear(ctx, x, w, {2, 5});
  const Tensor dtop = make({4, 2}, 3), dbottom = make({4, 3}, 4);
  std::vector<double> want_dx(12, 0), want_dw(15, 0);
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t o = 0; o < 5; ++o) {
      const double dy =
          o < 2 ? dtop.data<float>()[r * 2 + o] : dbottom.data<float>()[r * 3 + o - 2];
      for (int64_t i = 0; i < 3; ++i) {
        want_dx[static_cast<size_t>(r * 3 + i)] += dy * w.value.data<float>()[o * 3 + i];
        want_dw[static_cast<size_t>(o * 3 + i)] += dy * x.value.data<float>()[r * 3 + i];
      }
    }
  }
  tape.backward(ctx, {{top.slot, dtop}, {bottom.slot, dbottom}});
  EXPECT_TRUE(close(to_double(read(x.slot->take())), want_dx, 1e-6));
  EXPECT_TRUE(close(to_double(read(dweight)), want_dw, 1e-6));
}

}  // namespace
}  // namespace rodimus::testing
