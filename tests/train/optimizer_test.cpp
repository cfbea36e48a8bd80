// Properties of every optimizer in the table, and of the gradient norm.
#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "layers/model.h"
#include "tests/support/random.h"

namespace rodimus {
namespace {

ModelConfig small() {
  ModelConfig config;
  config.vocab_size = 30;
  config.d_model = 16;
  config.n_layers = 2;
  config.mem_size = 8;
  config.n_heads = 2;
  return config;
}

class Optimizers : public ::testing::TestWithParam<std::string> {
 protected:
  Optimizers() {
    config_.name = GetParam();
    initialize(exec_, model_.parameters(), 1);
    optimizer_ = make_optimizer(exec_, model_.parameters(), config_);
  }

  std::vector<float> values() {
    const Tensor& x = model_.parameters().values;
    return {x.data<float>(), x.data<float>() + x.numel()};
  }
  // As if from backward: different in every step, zero in the gaps.
  void draw_gradients(uint64_t seed) {
    for (Parameter* p : model_.parameters().parameters) {
      const auto draws = testing::normal(numel_of(p->shape), seed++);
      std::copy(draws.begin(), draws.end(), model_.parameters().grads.data<float>() + p->offset);
    }
  }

  Exec exec_ = Cpu{2};
  Model model_{small(), exec_, DType::bf16, /*grads=*/true};
  OptimizerConfig config_;
  std::unique_ptr<Optimizer> optimizer_;
};

TEST_P(Optimizers, StateHasNamesAndCoversTheBuffers) {
  std::set<std::string> names{"params"};
  for (const OptimizerState& part : optimizer_->state()) {
    EXPECT_TRUE(names.insert(part.name).second) << part.name;
    EXPECT_EQ(part.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), std::string::npos);
    EXPECT_EQ(part.tensor.numel(), part.owned.size());
    EXPECT_EQ(part.owned.begin, 0);
    EXPECT_EQ(part.owned.end, model_.parameters().values.numel());
  }
}

// state() and updates() are all that an optimizer carries: given these, a second one continues
// identically.
TEST_P(Optimizers, ContinuesFromItsStateWithTheSameBits) {
  draw_gradients(1);
  optimizer_->step(exec_, 1e-2, 1);
  const auto other = make_optimizer(exec_, model_.parameters(), config_);
  std::vector<OptimizerState> from = optimizer_->state(), to = other->state();
  ASSERT_EQ(from.size(), to.size());
  for (size_t i = 0; i < from.size(); ++i) {
    EXPECT_EQ(from[i].name, to[i].name);
    std::copy_n(from[i].tensor.data<float>(), from[i].tensor.numel(), to[i].tensor.data<float>());
  }
  other->set_updates(optimizer_->updates());
  const std::vector<float> before = values();
  draw_gradients(100);
  optimizer_->step(exec_, 1e-2, 1);
  const std::vector<float> want = values();
  EXPECT_NE(want, before);
  std::copy(before.begin(), before.end(), model_.parameters().values.data<float>());
  other->step(exec_, 1e-2, 1);
  EXPECT_EQ(values(), want);
  EXPECT_EQ(other->updates(), 2);
}

TEST_P(Optimizers, DecaysWhatIsDeclaredSoAndNothingElse) {
  const std::vector<float> before = values();
  optimizer_->step(exec_, /*lr=*/0.5, 0);  // all gradients are zero
  const std::vector<float> after = values();
  int64_t decayed = 0;
  for (const Parameter* p : model_.parameters().parameters) {
    const auto begin = static_cast<size_t>(p->offset);
    for (size_t i = begin; i < begin + static_cast<size_t>(numel_of(p->shape)); ++i) {
      const double factor = p->decay == Decay::yes ? 1 - 0.5 * config_.weight_decay : 1;
      ASSERT_NEAR(after[i], factor * before[i], 1e-6 * std::abs(before[i])) << p->name;
    }
    decayed += p->decay == Decay::yes ? 1 : 0;
  }
  EXPECT_EQ(decayed, 2 * 13 + 1);  // the matrices and taps of each block, and the head
}

TEST_P(Optimizers, WritesTheBf16Copy) {
  draw_gradients(1);
  optimizer_->step(exec_, 1e-2, 1);
  const ParameterBuffers& buffers = model_.parameters();
  for (const Parameter* p : buffers.parameters) {
    for (int64_t i = 0; i < numel_of(p->shape); ++i) {
      ASSERT_EQ(p->bf16_copy.data<bf16>()[i].bits,
                bf16(std::as_const(p->var.value).data<float>()[i]).bits)
          << p->name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, Optimizers, ::testing::ValuesIn(optimizer_names()),
                         [](const auto& test) { return test.param; });

TEST(Optimizer, AnUnknownNameIsRefused) {
  Exec exec = Cpu{1};
  Model model(small(), exec, DType::f32, true);
  OptimizerConfig config;
  config.name = "adam";
  EXPECT_THROW(make_optimizer(exec, model.parameters(), config), Error);
}

TEST(GradientNorm, DoesNotDependOnTheLayout) {
  Exec exec = Cpu{2};
  const auto matrix = [](const char* name, Decay decay) {
    return Parameter(name, {300, 500}, {}, decay);
  };
  const auto norm_of = [&](bool one_group, Decay decay) {
    Parameter a = matrix("a", Decay::no), b = matrix("b", decay), c("c", {7}, {}, Decay::yes);
    using Groups = std::vector<std::vector<Parameter*>>;
    ParameterBuffers buffers = allocate_parameters(
        exec, one_group ? Groups{{&a, &b, &c}} : Groups{{&a}, {&b}, {&c}}, DType::f32, true);
    double squares = 0;
    uint64_t seed = 1;
    for (const Parameter* p : buffers.parameters) {
      const auto draws = testing::normal(numel_of(p->shape), seed++);
      std::copy(draws.begin(), draws.end(), buffers.grads.data<float>() + p->offset);
      for (const double draw : draws) squares += draw * draw;
    }
    const double norm = gradient_norm(exec, buffers);
    EXPECT_NEAR(norm, std::sqrt(squares), 1e-6 * norm);  // the draws are rounded to f32
    return norm;
  };
  const double norm = norm_of(false, Decay::no);
  EXPECT_EQ(norm_of(true, Decay::no), norm);
  EXPECT_EQ(norm_of(true, Decay::yes), norm);
}

}  // namespace
}  // namespace rodimus
