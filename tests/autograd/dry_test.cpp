// A dry run counts exactly what the backend's allocator hands out: op by op, forward and backward,
// byte for byte. This also tests the scratch that kernel contracts state.
#include "kernels/dry.h"

#include <gtest/gtest.h>

#include <functional>

#include "autograd/ops.h"
#include "tests/support/device.h"

namespace rodimus {
namespace {

using testing::kDevice;

constexpr int kThreads = 2;

Exec real() { return testing::backend(kThreads); }
Exec dry() { return Dry{testing::backend(kThreads)}; }

Var leaf(Context& ctx, Shape shape, DType type) {
  const Tensor x = zeros(ctx.exec, std::move(shape));
  return {convert_to(ctx.exec, x, type), std::make_shared<GradSlot>()};
}
Var leaf(Context& ctx, Shape shape) { return leaf(ctx, std::move(shape), ctx.compute); }
// A parameter: its gradient accumulates in a buffer.
Var weight(Context& ctx, const Shape& shape, DType type) {
  return {leaf(ctx, shape, type).value, std::make_shared<GradSlot>(zeros(ctx.exec, shape))};
}

using Operands = std::vector<Var>;
struct Case {
  std::string name;
  std::function<Operands(Context&)> make;
  std::function<std::vector<Var>(Context&, const Operands&)> op;  // outputs; none for a root
};

struct Peaks {
  int64_t forward, both;
  bool operator==(const Peaks&) const = default;
};
std::ostream& operator<<(std::ostream& to, const Peaks& peaks) {
  return to << "forward " << peaks.forward << ", with backward " << peaks.both;
}

// Bytes beyond the operands, from peak() after reset().
Peaks run(const Case& test, Exec exec, DType compute, const std::function<int64_t()>& in_use,
          const std::function<void()>& reset, const std::function<int64_t()>& peak) {
  Context ctx{exec, compute};
  const Operands operands = test.make(ctx);
  Tape tape;
  reset();
  const int64_t before = in_use();
  ctx.tape = &tape;
  Peaks peaks{};
  std::vector<Tape::Seed> seeds;
  {
    const std::vector<Var> outputs = test.op(ctx, operands);
    peaks.forward = peak() - before;
    for (const Var& y : outputs) {
      const Tensor dy = zeros(ctx.exec, y.value.shape());
      seeds.push_back({y.slot, convert_to(ctx.exec, dy, y.value.dtype())});
    }
  }
  reset();
  tape.backward(ctx, std::move(seeds));
  peaks.both = peak() - before;
  return peaks;
}

Peaks really(const Case& test, DType compute) {
  return run(
      test, real(), compute, [] { return memory::stats(kDevice).in_use; }, memory::reset_peak,
      [] { return memory::stats(kDevice).peak; });
}

Peaks counted(const Case& test, DType compute) {
  DryMemory memory(kDevice);
  return run(
      test, dry(), compute, [&] { return memory.in_use(); }, [&] { memory.reset_peak(); },
      [&] { return memory.peak(); });
}

Tensor some_ids(Context& ctx, int64_t rows) {
  const std::vector<int32_t> ids(static_cast<size_t>(rows), 1);
  return to_device(ctx.exec, ids, {rows});
}

Case linear_case(int64_t rows, int64_t in, int64_t out) {
  return {concat("linear ", rows, " ", in, " ", out),
          [=](Context& ctx) {
            return Operands{leaf(ctx, {rows, in}), weight(ctx, {out, in}, ctx.compute)};
          },
          [](Context& ctx, const Operands& x) { return std::vector{linear(ctx, x[0], x[1])}; }};
}

Case head_loss_case(int64_t rows, int64_t dim, int64_t vocab) {
  return {concat("head_loss ", rows, " ", dim, " ", vocab),
          [=](Context& ctx) {
            return Operands{leaf(ctx, {rows, dim}), weight(ctx, {vocab, dim}, ctx.compute),
                            Var{some_ids(ctx, rows), nullptr}};
          },
          [](Context& ctx, const Operands& x) {
            (void)head_loss(ctx, x[0], x[1], x[2].value, 1);
            return std::vector<Var>{};
          }};
}

Case embedding_case(int64_t rows, int64_t dim, int64_t vocab) {
  return {
      concat("embedding ", rows, " ", dim, " ", vocab),
      [=](Context& ctx) {
        return Operands{Var{some_ids(ctx, rows), nullptr}, weight(ctx, {vocab, dim}, DType::f32)};
      },
      [](Context& ctx, const Operands& x) {
        return std::vector{embedding(ctx, x[0].value, x[1])};
      }};
}

Case norm_case(int64_t rows, int64_t dim) {
  return {concat("residual_norm ", rows, " ", dim),
          [=](Context& ctx) {
            return Operands{leaf(ctx, {rows, dim}, DType::f32), leaf(ctx, {rows, dim}),
                            weight(ctx, {dim}, DType::f32)};
          },
          [](Context& ctx, const Operands& x) {
            const ResidualNorm y = residual_norm(ctx, x[0], x[1], x[2], 1e-5f);
            return std::vector{y.sum, y.norm};
          }};
}

Case gated_norm_case(int64_t rows, int64_t dim) {
  return {concat("gated_norm ", rows, " ", dim),
          [=](Context& ctx) {
            return Operands{leaf(ctx, {rows, dim}), leaf(ctx, {rows, dim}),
                            weight(ctx, {dim}, DType::f32), leaf(ctx, {rows, dim}),
                            weight(ctx, {dim}, DType::f32)};
          },
          [](Context& ctx, const Operands& x) {
            return std::vector{gated_norm(ctx, x[0], x[1], x[2], x[3], x[4], 1e-5f)};
          }};
}

Case gates_case(int64_t rows, int64_t dim) {
  return {concat("gates ", rows, " ", dim),
          [=](Context& ctx) {
            return Operands{leaf(ctx, {rows, 2 * dim}), leaf(ctx, {rows, 2 * dim}),
                            weight(ctx, {2 * dim}, DType::f32)};
          },
          [](Context& ctx, const Operands& x) {
            const auto [q, k, g] = ddts_gates(ctx, x[0], x[1], x[2], 1e-5f);
            const Var u = swiglu(ctx, x[0], x[1]), s = sigmoid_gate(ctx, x[0], x[2], x[1]);
            return std::vector{q, k, g, u, s};
          }};
}

Case conv_case(int64_t B, int64_t T, int64_t D, int64_t width) {
  return {concat("short_conv ", B, " ", T, " ", D, " ", width),
          [=](Context& ctx) {
            return Operands{leaf(ctx, {B, T, D}), weight(ctx, {D, 1, width}, DType::f32),
                            weight(ctx, {D}, DType::f32)};
          },
          [](Context& ctx, const Operands& x) {
            return std::vector{short_conv(ctx, x[0], x[1], x[2], {}, {})};
          }};
}

Case ddts_case(int64_t B, int64_t T, int64_t K, int64_t V) {
  return {concat("ddts ", B, " ", T, " ", K, " ", V),
          [=](Context& ctx) {
            return Operands{leaf(ctx, {B, T, K}), leaf(ctx, {B, T, K}), leaf(ctx, {B, T, V}),
                            leaf(ctx, {B, T, K}, DType::f32)};
          },
          [](Context& ctx, const Operands& x) {
            return std::vector{ddts(ctx, x[0], x[1], x[2], x[3], {}, {}, FinalState::dropped).o};
          }};
}

struct Heads {
  int64_t H, Hk, Hv;
};
Case ska_case(int64_t B, int64_t T, Heads heads, int64_t D, int64_t left) {
  return {concat("rotary, ska ", B, " ", T, " ", heads.H, " ", heads.Hk, " ", heads.Hv, " ", D, " ",
                 left),
          [=](Context& ctx) {
            return Operands{leaf(ctx, {B, T, heads.H, D}), leaf(ctx, {B, T, heads.Hk, D}),
                            leaf(ctx, {B, T, heads.Hv, D})};
          },
          [=](Context& ctx, const Operands& x) {
            const Var q = rotary(ctx, x[0], 10000, 0), k = rotary(ctx, x[1], 10000, 0);
            return std::vector{ska(ctx, q, k, x[2], left, {})};
          }};
}

std::vector<Case> cases() {
  std::vector<Case> all{linear_case(1, 24, 8),
                        linear_case(7, 24, 8),
                        linear_case(70, 256, 512),
                        embedding_case(70, 24, 61),
                        head_loss_case(70, 24, 61),
                        head_loss_case(7, 256, 256),
                        norm_case(1, 24),
                        norm_case(70, 24),
                        norm_case(300, 40),
                        gated_norm_case(70, 24),
                        gates_case(3, 8),
                        gates_case(70, 22),
                        gates_case(300, 64),
                        conv_case(2, 35, 24, 4),
                        conv_case(1, 300, 22, 4),
                        conv_case(2, 70, 24, 7),
                        ddts_case(2, 1, 8, 24),
                        ddts_case(1, 70, 16, 33),
                        ddts_case(2, 130, 72, 40),
                        ska_case(2, 20, {2, 1, 2}, 16, -1),
                        ska_case(1, 70, {4, 2, 1}, 8, 9),
                        ska_case(1, 20, {2, 2, 2}, 16, -1)};
  if (kDevice == Device::cpu) {  // too long on an emulator
    all.insert(all.end(), {linear_case(512, 256, 1024), head_loss_case(1500, 64, 9000),
                           conv_case(4, 2048, 512, 4), ddts_case(3, 1000, 128, 200),
                           ska_case(1, 2, {2, 1, 2}, 8, -1), ska_case(1, 1500, {2, 1, 2}, 24, 100),
                           ska_case(2, 700, {4, 1, 4}, 40, -1)});
  }
  return all;
}

TEST(DryOps, CountWhatTheAllocatorHandsOut) {
  static bool ran = false;
  if (testing::ran_before(ran)) return;
  for (const Case& test : cases()) {
    for (const DType compute : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(concat(test.name, " ", name_of(compute)));
      EXPECT_EQ(counted(test, compute), really(test, compute));
    }
  }
}

TEST(DryOps, TakeNoMemory) {
  const int64_t before = memory::stats(kDevice).reserved, host = memory::stats().reserved;
  DryMemory memory(kDevice);
  Context ctx{dry(), DType::bf16};
  const Tensor x = Tensor::empty({int64_t{1} << 40}, DType::f32, ctx.device());
  EXPECT_EQ(memory.in_use(), int64_t{4} << 40);
  EXPECT_EQ(convert_to(ctx.exec, x, DType::bf16).bytes(), int64_t{2} << 40);
  EXPECT_EQ(memory.peak(), int64_t{6} << 40);
  EXPECT_EQ(memory.in_use(), int64_t{4} << 40);
  EXPECT_EQ(memory::stats(kDevice).reserved, before);
  EXPECT_EQ(memory::stats().reserved, host);
}

TEST(DryOps, RunNoKernel) {
  Exec exec = dry();
  bool ran = false;
  on_device(exec, [&](auto&) { ran = true; });
  dispatch(exec, DType::f32, [&]<class T>(auto&) { ran = true; });
  EXPECT_FALSE(ran);
}

TEST(DryMemory, CountsByName) {
  DryMemory memory(Device::cuda);
  const auto take = [](int64_t n) { return Tensor::empty({n}, DType::f32, Device::dry); };
  const Tensor first = take(100);
  Tensor kept;
  {
    const Named outer("outer");
    kept = take(1000);
    const Named inner("inner");
    (void)take(2000);
    count_scratch({40, 4});
  }
  const Tensor last = take(10);
  ASSERT_EQ(memory.at_peak().size(), 3u);
  EXPECT_EQ(memory.at_peak()[0].name, kWorkspace);
  EXPECT_EQ(memory.at_peak()[0].bytes, 400);
  EXPECT_EQ(memory.at_peak()[1].name, "outer");
  EXPECT_EQ(memory.at_peak()[1].bytes, 4000);
  EXPECT_EQ(memory.at_peak()[2].name, "inner");
  EXPECT_EQ(memory.at_peak()[2].bytes, 8000);
  EXPECT_EQ(memory.peak(), 12400);
  EXPECT_EQ(memory.in_use(), 4440);
  memory.reset_peak();
  count_scratch({40, 4});
  EXPECT_EQ(memory.peak(), 4440 + 40 + 16);  // the pool's smallest block
}

TEST(DryMemory, MisuseIsSaid) {
  EXPECT_THROW(Tensor::empty({1}, DType::f32, Device::dry), Error);
  DryMemory memory(Device::cpu);
  EXPECT_THROW(DryMemory(Device::cpu), Error);
  const Tensor x = Tensor::empty({1}, DType::f32, Device::dry);
  Exec exec = dry();
  EXPECT_THROW(on_host(exec, x), Error);
}

TEST(DryMemoryDeathTest, ValuesCannotBeRead) {
  DryMemory memory(Device::cpu);
  const Tensor x = Tensor::empty({1}, DType::f32, Device::dry);
  EXPECT_DEATH((void)*static_cast<const volatile float*>(x.data<float>()), "");
}

}  // namespace
}  // namespace rodimus
