// Properties of the model beyond the golden files: carried state, document resets, accumulation,
// initialisation.
#include "layers/model.h"

#include <cmath>

#include "kernels/memory.h"
#include "layers/blocks.h"
#include "tests/layers/golden_model.h"
#include "tests/support/random.h"

namespace rodimus::testing {
namespace {

ModelConfig small(const std::string& block, int64_t window) {
  ModelConfig config;
  config.block = block;
  config.vocab_size = 50;
  config.d_model = 32;
  config.n_layers = 2;
  config.mem_size = 16;
  config.n_heads = 2;
  config.window = window;
  return config;
}

Tensor tokens(int64_t B, int64_t T, uint64_t seed) {
  Tensor ids = Tensor::empty({B, T}, DType::i32);
  const auto draws = uniform(B * T, seed, 0, 50);
  for (size_t i = 0; i < draws.size(); ++i) ids.data<int32_t>()[i] = static_cast<int32_t>(draws[i]);
  return ids;
}

Tensor columns(const Tensor& ids, int64_t begin, int64_t end) {  // of (1,T)
  return ids.view({ids.numel()}).rows(begin, end).view({1, end - begin});
}

class ModelVariants : public ::testing::TestWithParam<std::tuple<std::string, int64_t, DType>> {
 protected:
  ModelVariants() : ctx_{Cpu{2}, std::get<2>(GetParam()), nullptr} {
    config_ = small(std::get<0>(GetParam()), std::get<1>(GetParam()));
    model_ = std::make_unique<Model>(config_, ctx_.exec, ctx_.compute, true);
    initialize(ctx_.exec, model_->parameters(), 7);
  }
  // f32: the same sums are split differently. bf16: a few intermediate roundings of 2^-9 each
  // differ.
  double tolerance() const { return ctx_.compute == DType::f32 ? 1e-5 : 2e-2; }

  Context ctx_;
  ModelConfig config_;
  std::unique_ptr<Model> model_;
};

TEST_P(ModelVariants, CarriedStateEqualsOnePass) {
  const int64_t T = 150;
  const Tensor ids = tokens(1, T, 1), targets = tokens(1, T, 2);
  const std::vector<double> want = values_of(model_->losses(ctx_, ids, targets, {}, 0));
  for (const int64_t piece : {1, 7, 64, 65, 149}) {
    ModelState state;
    std::vector<double> got;
    for (int64_t begin = 0; begin < T; begin += piece) {
      const int64_t end = std::min(T, begin + piece);
      for (const double loss : values_of(model_->losses(ctx_, columns(ids, begin, end),
                                                        columns(targets, begin, end), state))) {
        got.push_back(loss);
      }
    }
    EXPECT_TRUE(close(got, want, tolerance())) << "pieces of " << piece;
    EXPECT_EQ(state.position, T);
  }
}

TEST_P(ModelVariants, NextLogitsAreTheLastOfAllLogits) {
  const Tensor ids = tokens(1, 40, 3);
  const std::vector<double> all = values_of(model_->logits(ctx_, ids));
  ModelState state;
  (void)model_->next_logits(ctx_, columns(ids, 0, 39), state);
  const std::vector<double> last =
      values_of(model_->next_logits(ctx_, columns(ids, 39, 40), state));
  EXPECT_TRUE(close(last, std::span(all).subspan(39 * 50), tolerance()));
}

TEST_P(ModelVariants, DocumentResetEqualsSeparateSequences) {
  const int64_t T = 100, cut = 37;
  const Tensor ids = tokens(1, T, 4), targets = tokens(1, T, 5);
  Tensor starts = Tensor::empty({1, T}, DType::i32);
  for (int64_t t = 0; t < T; ++t)
    starts.data<int32_t>()[t] = static_cast<int32_t>(t < cut ? 0 : cut);
  const std::vector<double> got = values_of(model_->losses(ctx_, ids, targets, starts, 0));
  std::vector<double> want;
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, T}}) {
    for (const double loss : values_of(
             model_->losses(ctx_, columns(ids, begin, end), columns(targets, begin, end), {}, 0))) {
      want.push_back(loss);
    }
  }
  EXPECT_TRUE(close(got, want, tolerance()));
}

TEST_P(ModelVariants, MicroBatchesAccumulateToTheWholeBatch) {
  const int64_t B = 4, T = 33;
  const Tensor ids = tokens(B, T, 6), targets = tokens(B, T, 7);
  Tensor& grads = model_->parameters().grads;
  const auto gradients = [&](int64_t micro) {
    std::fill_n(grads.data<float>(), grads.numel(), 0.0f);
    for (int64_t b = 0; b < B; b += micro) {
      Tape tape;
      Context recording{ctx_.exec, ctx_.compute, &tape};
      (void)model_->losses(recording, ids.rows(b, b + micro), targets.rows(b, b + micro), {},
                           1.0f / (B * T));
      tape.backward(recording, {});
    }
    return values_of(grads);
  };
  const auto whole = gradients(B);
  EXPECT_TRUE(close(gradients(1), whole, tolerance()));
  EXPECT_TRUE(close(gradients(2), whole, tolerance()));
  EXPECT_EQ(gradients(B), whole) << "same computation, same bits";
}

// Gradients that are reported as final during backward have the same bits at the end.
TEST_P(ModelVariants, TellsWhichGradientsAreFinal) {
  const Tensor ids = tokens(2, 33, 6), targets = tokens(2, 33, 7);
  for (const auto& [tied, recompute] :
       {std::pair{false, false}, {false, true}, {true, false}, {true, true}}) {
    SCOPED_TRACE(::testing::Message() << "tied " << tied << " recompute " << recompute);
    config_.tied = tied;
    Model model(config_, ctx_.exec, ctx_.compute, true);
    initialize(ctx_.exec, model.parameters(), 7);
    const ParameterBuffers& buffers = model.parameters();
    const float* const grads = buffers.grads.data<float>();
    std::fill_n(model.parameters().grads.data<float>(), buffers.grads.numel(), 0.0f);
    std::vector<int64_t> offsets{buffers.grads.numel()};
    std::vector<std::vector<float>> then;
    Tape tape;
    Context recording{ctx_.exec, ctx_.compute, &tape};
    (void)model.losses(recording, ids, targets, {}, 1.0f / 66, recompute, [&](int64_t offset) {
      EXPECT_LT(offset, offsets.back());
      then.emplace_back(grads + offset, grads + offsets.back());
      offsets.push_back(offset);
    });
    tape.backward(recording, {});
    EXPECT_EQ(static_cast<int64_t>(then.size()), config_.n_layers + (tied ? 0 : 1));
    for (size_t i = 0; i < then.size(); ++i) {
      EXPECT_EQ(then[i], std::vector<float>(grads + offsets[i + 1], grads + offsets[i]));
      EXPECT_NE(then[i], std::vector<float>(then[i].size()));
    }
    // Only the embedding, which forward uses first, is not reported before the end.
    EXPECT_EQ(offsets.back(), buffers.groups[1]);
  }
}

TEST_P(ModelVariants, AsksTheSystemForNothingAfterTheSecondStep) {
  const Tensor ids = tokens(2, 70, 8), targets = tokens(2, 70, 9);
  int64_t after_two = 0;
  for (int step = 0; step < 4; ++step) {
    Tape tape;
    Context recording{ctx_.exec, ctx_.compute, &tape};
    (void)model_->losses(recording, ids, targets, {}, 1.0f / 140);
    tape.backward(recording, {});
    if (step == 1) after_two = memory::stats().system_calls;
  }
  EXPECT_EQ(memory::stats().system_calls, after_two);
}

INSTANTIATE_TEST_SUITE_P(All, ModelVariants,
                         ::testing::Combine(::testing::ValuesIn(block_names()),
                                            ::testing::Values(kFullWindow, int64_t{9}),
                                            ::testing::Values(DType::f32, DType::bf16)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_window" +
                                  std::to_string(std::get<1>(test.param)) + "_" +
                                  name_of(std::get<2>(test.param));
                         });

TEST(ModelConfig, DerivedSizesFollowTheAuthors) {
  ModelConfig config = small("rodimus_plus", 8);
  config.d_model = 256;
  config.n_heads = 4;
  EXPECT_EQ(config.d_inner(), 512);
  EXPECT_EQ(config.value_gate_rank(), 16);
  EXPECT_EQ(config.d_ff(), 344);  // 256 * 4/3 = 341.3 -> 341 -> 344
  config.d_model = 2048;
  EXPECT_EQ(config.value_gate_rank(), 32);
}

TEST(ModelConfig, ImpossibleSizesAreNamed) {
  const auto message = [](auto change) {
    ModelConfig config = small("rodimus_plus", 8);
    change(config);
    try {
      config.validate();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message([](ModelConfig&) {}), "");
  EXPECT_NE(message([](ModelConfig& c) { c.n_heads = 5; }).find("n_heads"), std::string::npos);
  EXPECT_NE(message([](ModelConfig& c) { c.window = -3; }).find("window"), std::string::npos);
  EXPECT_NE(message([](ModelConfig& c) { c.vocab_size = 0; }).find("vocab_size"),
            std::string::npos);
  EXPECT_NE(message([](ModelConfig& c) { c.n_heads_k = 3; }).find("n_heads_k"), std::string::npos);
  EXPECT_NE(message([](ModelConfig& c) { c.norm_eps = std::nan(""); }).find("norm_eps"),
            std::string::npos);
}

TEST(Initialization, FollowsTheAuthorsAndTheSeed) {
  Exec exec = Cpu{2};
  ModelConfig config = small("rodimus_plus", 8);
  config.d_model = 128;
  config.n_heads = 4;
  Model a(config, exec, DType::f32, false), b(config, exec, DType::f32, false);
  initialize(exec, a.parameters(), 1);
  initialize(exec, b.parameters(), 1);
  EXPECT_EQ(values_of(a.parameters().values), values_of(b.parameters().values));
  initialize(exec, b.parameters(), 2);
  EXPECT_NE(values_of(a.parameters().values), values_of(b.parameters().values));

  const auto spread = [&](const std::string& name) {
    for (const Parameter* p : a.parameters().parameters) {
      if (p->name != name) continue;
      double squares = 0;
      for (const double x : values_of(p->var.value)) squares += x * x;
      return std::sqrt(squares / static_cast<double>(p->var.value.numel()));
    }
    return -1.0;
  };
  EXPECT_NEAR(spread("model.embeddings.weight"), 0.02, 0.001);
  EXPECT_NEAR(spread("model.layers.0.mixer.fc.weight"), 0.02, 0.001);
  EXPECT_NEAR(spread("model.layers.1.mixer.out_proj.weight"), 0.02 / std::sqrt(6), 0.001);
  // xavier-uniform, gain 2^-2.5: rms = gain * sqrt(2 / (in + out))
  EXPECT_NEAR(spread("model.layers.0.mixer.inner_mixer.in_proj.weight"),
              std::exp2(-2.5) * std::sqrt(2.0 / (256 + 32)), 0.001);
  EXPECT_EQ(spread("model.layers.0.mixer.inner_mixer.residual_weight"), 1);
  EXPECT_EQ(spread("model.layers.0.mixer.inner_mixer.ch_gate_proj.1.bias"), 0);
}

}  // namespace
}  // namespace rodimus::testing
