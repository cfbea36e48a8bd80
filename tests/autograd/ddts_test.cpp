// The op ddts with its boundary states: gradients compared with the specification, and two halves
// of a sequence, chained by the state, compared with the whole.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "tests/kernels/ddts_case.h"

namespace rodimus::testing {
namespace {

constexpr bool kSmall = kDevice == Device::cuda;  // the emulator is slow

Tensor device_tensor(Exec& exec, const Doubles& values, Shape shape, DType dtype) {
  Tensor x = Tensor::empty(std::move(shape), DType::f32, device_of(exec));
  const std::vector<float> floats = cast<float>(values);
  on_device(exec, [&](auto& at) { memory::upload(at, x.data<float>(), floats.data(), x.bytes()); });
  return convert_to(exec, x, dtype);
}

Doubles values_of(Exec& exec, const Tensor& x) {
  const Tensor host = on_host(exec, convert_to(exec, x, DType::f32));
  return to_double(std::vector<float>(host.data<float>(), host.data<float>() + host.numel()));
}

struct Operands {
  Var q, k, v, g, state;
};

class DdtsOp : public ::testing::TestWithParam<DType> {
 protected:
  Var variable(const Doubles& values, Shape shape, DType dtype) {
    return {device_tensor(ctx.exec, values, std::move(shape), dtype), std::make_shared<GradSlot>()};
  }
  Operands operands(const DdtsInputs& in) {
    const auto [B, T, K, V] = in.dims;
    return {variable(in.q, {B, T, K}, ctx.compute), variable(in.k, {B, T, K}, ctx.compute),
            variable(in.v, {B, T, V}, ctx.compute), variable(in.g, {B, T, K}, DType::f32),
            variable(in.state_in, {B, K, V}, DType::f32)};
  }
  Tape::Seed seed(const Var& of, const Doubles& grad) {
    return {of.slot, device_tensor(ctx.exec, grad, of.value.shape(), of.value.dtype())};
  }
  Doubles gradient(const Var& x) { return values_of(ctx.exec, x.slot->take()); }

  // The bounds of tests/kernels/ddts_test.cpp: in f32 the roundings of a path from token to token
  // and of sums, in bf16 twice that of one rounding of the result.
  ::testing::AssertionResult is_close(const Doubles& got, const Doubles& want, int64_t T) const {
    const double in_f32 = std::sqrt(364.0 + static_cast<double>(T)) * 0x1p-24;
    const double in_bf16 = 2 * relative_rms(to_double(cast<bf16>(want)), want);
    return close(got, want, ctx.compute == DType::f32 ? in_f32 : in_bf16);
  }

  Tape tape;
  Context ctx{.exec = backend(2), .compute = GetParam(), .tape = &tape};
};
INSTANTIATE_TEST_SUITE_P(In, DdtsOp, ::testing::Values(DType::f32, DType::bf16),
                         [](const auto& one) { return std::string(name_of(one.param)); });

DdtsDims some_dims() { return {kSmall ? 1 : 2, kSmall ? 70 : 150, 20, 37}; }

TEST_P(DdtsOp, GradientsReachOperandsAndTheInitialState) {
  const DdtsInputs in = random_ddts(some_dims(), 0.1, 3);
  const DdtsOutputs want = reference_ddts(in);
  const Operands x = operands(in);
  const DdtsResult y = ddts(ctx, x.q, x.k, x.v, x.g, {}, x.state, FinalState::wanted);
  EXPECT_TRUE(is_close(values_of(ctx.exec, y.o.value), want.o, in.dims.T));
  EXPECT_TRUE(is_close(values_of(ctx.exec, y.state.value), want.state_out, in.dims.T));
  tape.backward(ctx, {seed(y.o, in.d_o), seed(y.state, in.dstate_out)});
  EXPECT_TRUE(is_close(gradient(x.q), want.dq, in.dims.T));
  EXPECT_TRUE(is_close(gradient(x.k), want.dk, in.dims.T));
  EXPECT_TRUE(is_close(gradient(x.v), want.dv, in.dims.T));
  EXPECT_TRUE(is_close(gradient(x.g), want.dg, in.dims.T));
  EXPECT_TRUE(is_close(gradient(x.state), want.dstate_in, in.dims.T));
}

// A loss may use only the final state, or only the outputs even though the state was requested.
TEST_P(DdtsOp, OneOfTheOutputsIsEnough) {
  for (const bool reads_state : {false, true}) {
    DdtsInputs in = random_ddts(some_dims(), 0.1, 4);
    std::fill_n((reads_state ? in.d_o : in.dstate_out).begin(),
                (reads_state ? in.d_o : in.dstate_out).size(), 0.0);
    const DdtsOutputs want = reference_ddts(in);
    const Operands x = operands(in);
    const DdtsResult y = ddts(ctx, x.q, x.k, x.v, x.g, {}, x.state, FinalState::wanted);
    tape.backward(ctx, {reads_state ? seed(y.state, in.dstate_out) : seed(y.o, in.d_o)});
    EXPECT_TRUE(is_close(gradient(x.k), want.dk, in.dims.T));
    EXPECT_TRUE(is_close(gradient(x.v), want.dv, in.dims.T));
    EXPECT_TRUE(is_close(gradient(x.g), want.dg, in.dims.T));
    EXPECT_TRUE(is_close(gradient(x.state), want.dstate_in, in.dims.T));
  }
}

// An initial state without a slot is a constant; a missing one is zero.
TEST_P(DdtsOp, TheInitialStateMayBeAConstantOrMissing) {
  DdtsInputs in = random_ddts(some_dims(), 0.1, 5);
  const Operands x = operands(in);
  const DdtsResult y = ddts(ctx, x.q, x.k, x.v, x.g, {}, {x.state.value, nullptr});
  EXPECT_FALSE(y.state.value.defined());
  tape.backward(ctx, {seed(y.o, in.d_o)});
  std::fill(in.dstate_out.begin(), in.dstate_out.end(), 0.0);
  EXPECT_TRUE(is_close(gradient(x.q), reference_ddts(in).dq, in.dims.T));
  EXPECT_FALSE(x.state.slot->take().defined());

  std::fill(in.state_in.begin(), in.state_in.end(), 0.0);
  const DdtsOutputs want = reference_ddts(in);
  const DdtsResult z = ddts(ctx, x.q, x.k, x.v, x.g, {});
  EXPECT_TRUE(is_close(values_of(ctx.exec, z.o.value), want.o, in.dims.T));
  tape.backward(ctx, {seed(z.o, in.d_o)});
  EXPECT_TRUE(is_close(gradient(x.q), want.dq, in.dims.T));
}

Tensor part(const Tensor& x, int64_t begin, int64_t end) {  // of one sequence
  return x.view({x.dim(1), x.dim(2)}).rows(begin, end).view({1, end - begin, x.dim(2)});
}

// Cut at a chunk border, the halves match the whole bit for bit, because the state and its gradient
// cross the border in f32 either way. The GPU processes chunks in pairs, and uses f32 only at the
// borders of pairs.
TEST_P(DdtsOp, TwoHalvesChainedByTheStateAreTheWhole) {
  constexpr int64_t kCut = kDevice == Device::cuda ? 128 : 64;
  const DdtsInputs in = random_ddts({1, 2 * kCut, 20, 37}, 0.1, 6);
  const Operands x = operands(in);
  const DdtsResult whole = ddts(ctx, x.q, x.k, x.v, x.g, {}, x.state, FinalState::wanted);
  tape.backward(ctx, {seed(whole.o, in.d_o), seed(whole.state, in.dstate_out)});

  const auto half = [&](int64_t begin, int64_t end) {
    const auto of = [&](const Var& y) {
      return Var{part(y.value, begin, end), std::make_shared<GradSlot>()};
    };
    return Operands{of(x.q), of(x.k), of(x.v), of(x.g), {}};
  };
  Operands first = half(0, kCut), second = half(kCut, in.dims.T);
  first.state = {x.state.value, std::make_shared<GradSlot>()};
  const DdtsResult begun =
      ddts(ctx, first.q, first.k, first.v, first.g, {}, first.state, FinalState::wanted);
  const DdtsResult ended =
      ddts(ctx, second.q, second.k, second.v, second.g, {}, begun.state, FinalState::wanted);
  const Tensor d_o = seed(whole.o, in.d_o).grad;
  tape.backward(ctx, {{begun.o.slot, part(d_o, 0, kCut)},
                      {ended.o.slot, part(d_o, kCut, in.dims.T)},
                      seed(ended.state, in.dstate_out)});

  const auto joined = [&](const Tensor& a, const Tensor& b) {
    Doubles both = values_of(ctx.exec, a);
    const Doubles rest = values_of(ctx.exec, b);
    both.insert(both.end(), rest.begin(), rest.end());
    return both;
  };
  EXPECT_EQ(joined(begun.o.value, ended.o.value), values_of(ctx.exec, whole.o.value));
  EXPECT_EQ(values_of(ctx.exec, ended.state.value), values_of(ctx.exec, whole.state.value));
  for (const auto member : {&Operands::q, &Operands::k, &Operands::v, &Operands::g})
    EXPECT_EQ(joined((first.*member).slot->take(), (second.*member).slot->take()),
              gradient(x.*member));
  EXPECT_EQ(gradient(first.state), gradient(x.state));
}

// Decoding: the same op without a tape.
TEST_P(DdtsOp, StatesAreCarriedWithoutATapeToo) {
  const DdtsInputs in = random_ddts({1, 5, 20, 37}, 0.1, 7);
  const DdtsOutputs want = reference_ddts(in);
  const Operands x = operands(in);
  ctx.tape = nullptr;
  Var state{x.state.value, nullptr};
  Doubles o;
  for (int64_t t = 0; t < in.dims.T; ++t) {
    const auto token = [&](const Var& y) { return Var{part(y.value, t, t + 1), nullptr}; };
    const DdtsResult y =
        ddts(ctx, token(x.q), token(x.k), token(x.v), token(x.g), {}, state, FinalState::wanted);
    EXPECT_EQ(y.state.slot, nullptr);
    state = y.state;
    const Doubles row = values_of(ctx.exec, y.o.value);
    o.insert(o.end(), row.begin(), row.end());
  }
  EXPECT_TRUE(is_close(o, want.o, in.dims.T));
  EXPECT_TRUE(is_close(values_of(ctx.exec, state.value), want.state_out, in.dims.T));
}

TEST_P(DdtsOp, RefusesAStateOfAnotherShape) {
  const DdtsInputs in = random_ddts({1, 3, 4, 5}, 0.1, 8);
  Operands x = operands(in);
  x.state.value = x.state.value.view({1, 5, 4});
  try {
    (void)ddts(ctx, x.q, x.k, x.v, x.g, {}, x.state);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("ddts: state is (1, 5, 4), expected (1, 4, 5)"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace rodimus::testing
