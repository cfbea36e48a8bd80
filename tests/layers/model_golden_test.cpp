// The whole model compared with float64 results of the authors' model: logits, loss, every
// gradient, and twelve steps of training.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "kernels/convert.h"
#include "tests/layers/golden_model.h"
#include "tests/layers/plain_bf16.h"
#include "tests/support/bf16_criterion.h"
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
    const Tensor losses = model.losses(recording, there(batch.inputs), there(batch.targets), {},
                                       static_cast<float>(1 / count), recompute_blocks);
    tape.backward(recording, {});
    return sum_of(losses) / count;
  }

  // The emulator takes seconds for a pass of a model: there a `test` with many passes runs only for
  // the first schedule and for some models (all if empty), unless every schedule is requested.
  static bool once_on_emulator(const std::string& test, const std::set<std::string>& models) {
    if (kDevice == Device::cpu || every_schedule()) return true;
    const std::string name = golden_name(GetParam());
    static std::map<std::string, bool> ran;
    return (models.empty() || models.contains(name)) && !ran_before(ran[test + " " + name]);
  }

  Golden golden_;
  ModelConfig config_;
  Context f32_{backend(2), DType::f32, nullptr};
};

// Errors of f32 sums of n random terms grow like sqrt(n) eps; the longest here are T m = 90 * 64
// terms of a state, 6e-8 * 76 = 5e-6 per layer, at most three layers. The bound 2e-5 covers their
// sum.
constexpr double kTolerance = 2e-5;

TEST_P(ModelGolden, LogitsMatch) {
  if (!once_on_emulator("logits", {})) return;
  Model model(config_, f32_.exec, f32_.compute, /*grads=*/false);
  load_golden(golden_, f32_.exec, model);
  const auto ids = golden_.i32("input_ids");
  const Tensor input = to_device(f32_.exec, ids, golden_.shape("input_ids"));
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

// Cross-entropy per position in float64 from the golden logits: these measure how accurate a loss
// is, whereas in their mean errors of both signs cancel by luck.
std::vector<double> golden_losses(const Golden& golden, const Tensor& targets) {
  const auto logits = golden.array("logits");
  const auto shape = golden.shape("logits");  // (B, T, vocab), the last position has no target
  std::vector<double> losses;
  for (int64_t b = 0; b < shape[0]; ++b) {
    for (int64_t t = 0; t + 1 < shape[1]; ++t) {
      const double* z = logits.data() + (b * shape[1] + t) * shape[2];
      const double largest = *std::max_element(z, z + shape[2]);
      double sum = 0;
      for (int64_t i = 0; i < shape[2]; ++i) sum += std::exp(z[i] - largest);
      const int32_t target = targets.data<int32_t>()[b * (shape[1] - 1) + t];
      losses.push_back(largest + std::log(sum) - z[target]);
    }
  }
  return losses;
}

// Each tensor is at most twice as wrong as in the plain model; in the geometric mean over all
// tensors the result is better.
TEST_P(ModelGolden, Bf16IsAtMostTwiceAsWrongAsAPlainModel) {
  if (!once_on_emulator("bf16", {})) return;
  Context ctx{backend(2), DType::bf16, nullptr};
  Model model(config_, ctx.exec, ctx.compute, /*grads=*/true);
  load_golden(golden_, ctx.exec, model);
  PlainBf16 plain(config_, golden_);
  const auto ids = golden_.i32("input_ids");
  const auto shape = golden_.shape("input_ids");
  const Shifted batch = shift(ids.data(), shape[0], shape[1]);
  Tensor whole = Tensor::empty(shape, DType::i32);
  std::copy(ids.begin(), ids.end(), whole.data<int32_t>());

  std::vector<double> ratios;
  const auto compare = [&](const std::string& name, const Tensor& ours, const Tensor& theirs,
                           const std::vector<double>& want) {
    EXPECT_TRUE(at_most_twice_as_wrong(values_of(ours), values_of(theirs), want, kTolerance))
        << name;
    ratios.push_back(relative_rms(values_of(ours), want) / relative_rms(values_of(theirs), want));
  };
  compare("logits", model.logits(ctx, there(whole)), plain.logits(whole), golden_.array("logits"));
  const Tensor losses = model.losses(ctx, there(batch.inputs), there(batch.targets), {}, 0);
  const Tensor plain_losses = plain.run(batch.inputs, batch.targets);
  compare("losses", losses, plain_losses, golden_losses(golden_, batch.targets));
  run(model, ctx);
  for (const Parameter* p : model.parameters().parameters) {
    compare(p->name, model.parameters().grads.slice(p->offset, p->shape), plain.grad(p->name),
            golden_.array("grads/" + p->name));
  }
  double logs = 0;
  for (const double ratio : ratios) logs += std::log(ratio);
  const double mean = std::exp(logs / static_cast<double>(ratios.size()));
  RecordProperty("mean_ratio", std::to_string(mean));
  RecordProperty("worst_ratio", std::to_string(*std::max_element(ratios.begin(), ratios.end())));
  EXPECT_LT(mean, 1);
}

TEST_P(ModelGolden, RecomputationGivesTheSameBits) {
  if (!once_on_emulator("recompute", {"rodimus_plus"})) return;
  for (const DType compute : {DType::f32, DType::bf16}) {
    Context ctx{backend(2), compute, nullptr};
    Model kept(config_, ctx.exec, compute, true), again(config_, ctx.exec, compute, true);
    load_golden(golden_, ctx.exec, kept);
    load_golden(golden_, ctx.exec, again);
    EXPECT_EQ(run(kept, ctx, false), run(again, ctx, true));
    EXPECT_EQ(values_of(kept.parameters().grads), values_of(again.parameters().grads))
        << name_of(compute);
  }
}

// Twelve steps: losses and gradient norms agree to 1e-4 (f32 differences grow with every update).
TEST_P(ModelGolden, TrajectoryMatches) {
  if (!once_on_emulator("trajectory", {"rodimus", "rodimus_plus"})) return;
  Model model(config_, f32_.exec, f32_.compute, /*grads=*/true);
  load_golden(golden_, f32_.exec, model);
  OptimizerConfig settings;
  settings.lr = golden_.number("lr");
  settings.beta1 = golden_.number("beta1");
  settings.beta2 = golden_.number("beta2");
  settings.eps = golden_.number("adam_eps");
  settings.weight_decay = golden_.number("weight_decay");
  settings.clip = golden_.number("clip");
  const auto optimizer = make_optimizer(f32_.exec, model.parameters(), settings);

  const auto batches = golden_.i32("train/batches");
  const auto shape = golden_.shape("train/batches");  // (batches, B, T)
  const auto losses = golden_.array("train/loss"), norms = golden_.array("train/grad_norm");
  for (size_t step = 0; step < losses.size(); ++step) {
    const int64_t at = static_cast<int64_t>(step) % shape[0] * shape[1] * shape[2];
    const Shifted batch = shift(batches.data() + at, shape[1], shape[2]);
    Tensor& grads = model.parameters().grads;
    on_device(f32_.exec, [&](auto& exec) { fill(exec, grads.data<float>(), 0, grads.numel()); });
    Tape tape;
    Context recording{f32_.exec, f32_.compute, &tape};
    const double count = static_cast<double>(batch.targets.numel());
    const Tensor loss = model.losses(recording, there(batch.inputs), there(batch.targets), {},
                                     static_cast<float>(1 / count));
    tape.backward(recording, {});
    const double norm = gradient_norm(f32_.exec, model.parameters());
    EXPECT_TRUE(close(std::vector{sum_of(loss) / count}, std::vector{losses[step]}, 1e-4))
        << "loss, step " << step;
    EXPECT_TRUE(close(std::vector{norm}, std::vector{norms[step]}, 1e-4))
        << "gradient norm, step " << step;
    optimizer->step(f32_.exec, settings.lr, norm);
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
