// The whole model against float64 results of the authors' model: logits, loss, every gradient, and
// twelve steps of training.
#include <cmath>

#include "tests/layers/golden_model.h"
#include "train/optimizer.h"

namespace rodimus::testing {
namespace {

class ModelGolden : public ::testing::TestWithParam<std::filesystem::path> {
 protected:
  ModelGolden() : golden_(GetParam()), config_(golden_config(golden_)) {}

  // Loss and gradients of the golden batch.
  double run(Model& model, Context& ctx, bool recompute_blocks = false) {
    const auto ids = golden_.i32("input_ids");
    const auto shape = golden_.shape("input_ids");
    const Shifted batch = shift(ids.data(), shape[0], shape[1]);
    Tape tape;
    Context recording{ctx.exec, ctx.compute, &tape};
    const double count = static_cast<double>(batch.targets.numel());
    const Tensor losses = model.losses(recording, batch.inputs, batch.targets, {},
                                       static_cast<float>(1 / count), recompute_blocks);
    tape.backward(recording, {});
    return sum_of(losses) / count;
  }

  Golden golden_;
  ModelConfig config_;
  Context f32_{Cpu{2}, DType::f32, nullptr};
};

// Errors of f32 sums of n random terms grow like sqrt(n) eps; the longest here are T m = 90 * 64
// terms of a state, 6e-8 * 76 = 5e-6 per layer, at most three layers. The bound 2e-5 covers their
// sum.
constexpr double kTolerance = 2e-5;

TEST_P(ModelGolden, LogitsMatch) {
  Model model(config_, f32_.exec, f32_.compute, /*grads=*/false);
  load_golden(golden_, f32_.exec, model);
  const auto ids = golden_.i32("input_ids");
  Tensor input = Tensor::empty(golden_.shape("input_ids"), DType::i32);
  std::copy(ids.begin(), ids.end(), input.data<int32_t>());
  EXPECT_TRUE(close(values_of(model.logits(f32_, input)), golden_.array("logits"), kTolerance));
}

TEST_P(ModelGolden, LossAndEveryGradientMatch) {
  Model model(config_, f32_.exec, f32_.compute, /*grads=*/true);
  load_golden(golden_, f32_.exec, model);
  const double loss = run(model, f32_);
  EXPECT_TRUE(close(std::vector{loss}, std::vector{golden_.scalar("loss")}, 1e-6));
  for (const Parameter* p : model.parameters().parameters) {
    const Tensor grad = model.parameters().grads.slice(p->offset, p->shape);
    EXPECT_TRUE(close(values_of(grad), golden_.array("grads/" + p->name), kTolerance)) << p->name;
  }
}

// bf16 operands: every GEMM input and every saved activation is rounded once, 2^-9 relative; about
// a dozen roundings lie between a parameter and the loss in each of up to three layers and add up
// like a random walk: sqrt(36) * 2^-9 = 1.2 % for the activations, and twice that for gradients,
// which pass them forwards and backwards.
TEST_P(ModelGolden, Bf16IsWithinItsRounding) {
  Context ctx{Cpu{2}, DType::bf16, nullptr};
  Model model(config_, ctx.exec, ctx.compute, /*grads=*/true);
  load_golden(golden_, ctx.exec, model);
  const double loss = run(model, ctx);
  EXPECT_NEAR(loss, golden_.scalar("loss"), 2e-3 * golden_.scalar("loss"));
  for (const Parameter* p : model.parameters().parameters) {
    const Tensor grad = model.parameters().grads.slice(p->offset, p->shape);
    EXPECT_TRUE(close(values_of(grad), golden_.array("grads/" + p->name), 0.025)) << p->name;
  }
}

TEST_P(ModelGolden, RecomputationGivesTheSameBits) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    Context ctx{Cpu{2}, compute, nullptr};
    Model kept(config_, ctx.exec, compute, true), again(config_, ctx.exec, compute, true);
    load_golden(golden_, ctx.exec, kept);
    load_golden(golden_, ctx.exec, again);
    EXPECT_EQ(run(kept, ctx, false), run(again, ctx, true));
    EXPECT_EQ(values_of(kept.parameters().grads), values_of(again.parameters().grads))
        << name_of(compute);
  }
}

// Twelve steps: losses and gradient norms to 1e-4, the bound of the issue (f32 differences grow
// with every update).
TEST_P(ModelGolden, TrajectoryMatches) {
  Model model(config_, f32_.exec, f32_.compute, /*grads=*/true);
  load_golden(golden_, f32_.exec, model);
  OptimizerConfig settings;
  settings.lr = golden_.number("lr");
  settings.beta1 = golden_.number("beta1");
  settings.beta2 = golden_.number("beta2");
  settings.eps = golden_.number("adam_eps");
  settings.weight_decay = golden_.number("weight_decay");
  settings.clip = golden_.number("clip");
  AdamW optimizer(f32_.exec, model.parameters(), settings);

  const auto batches = golden_.i32("train/batches");
  const auto shape = golden_.shape("train/batches");  // (batches, B, T)
  const auto losses = golden_.array("train/loss"), norms = golden_.array("train/grad_norm");
  for (size_t step = 0; step < losses.size(); ++step) {
    const int64_t at = static_cast<int64_t>(step) % shape[0] * shape[1] * shape[2];
    const Shifted batch = shift(batches.data() + at, shape[1], shape[2]);
    std::fill_n(model.parameters().grads.data<float>(), model.parameters().grads.numel(), 0.0f);
    Tape tape;
    Context recording{f32_.exec, f32_.compute, &tape};
    const double count = static_cast<double>(batch.targets.numel());
    const Tensor loss =
        model.losses(recording, batch.inputs, batch.targets, {}, static_cast<float>(1 / count));
    tape.backward(recording, {});
    const double norm = optimizer.grad_norm(f32_.exec);
    EXPECT_TRUE(close(std::vector{sum_of(loss) / count}, std::vector{losses[step]}, 1e-4))
        << "loss, step " << step;
    EXPECT_TRUE(close(std::vector{norm}, std::vector{norms[step]}, 1e-4))
        << "gradient norm, step " << step;
    optimizer.step(f32_.exec, settings.lr, norm);
  }
  for (const Parameter* p : model.parameters().parameters) {
    double squares = 0;
    for (const double x : values_of(p->var.value)) squares += x * x;
    EXPECT_TRUE(close(std::vector{std::sqrt(squares)},
                      std::vector{golden_.scalar("train/final_norm/" + p->name)}, 1e-4))
        << p->name;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, ModelGolden, ::testing::ValuesIn(golden_files("models", "")),
                         [](const auto& param) { return golden_name(param.param); });

}  // namespace
}  // namespace rodimus::testing
