// A dry step matches a real one: the same allocator peak, the same calls, FLOPs and bytes. On the
// emulator kernels and products do nothing, so that whole presets are fast enough for a test.
#include "train/dry_step.h"

#include <gtest/gtest.h>

#include <map>

#include "layers/blocks.h"
#include "tests/support/device.h"
#include "tests/train/model_flops.h"
#include "train/config/config.h"
#include "train/step.h"
#ifdef RODIMUS_TEST_CUDA
#include "tests/fakecuda/work.h"
#include "tests/simt/emulator.h"
#endif

namespace rodimus {
namespace {

using testing::kDevice;

constexpr int kThreads = 2;

struct Total {
  int64_t calls = 0;
  double flop = 0, bytes = 0;
  bool operator==(const Total&) const = default;
};
std::ostream& operator<<(std::ostream& to, const Total& total) {
  return to << total.calls << " calls, " << total.flop << " FLOP, " << total.bytes << " bytes";
}
using Totals = std::map<std::string, Total>;

Totals totals_of(std::span<const Profile::Row> rows) {
  Totals totals;
  for (const Profile::Row& row : rows)
    totals[concat(label_of(row.op), ", ", name_of(row.phase))] = {row.calls, row.cost.flop,
                                                                  row.cost.bytes};
  return totals;
}

#ifdef RODIMUS_TEST_CUDA
struct Skipping {
  Skipping() { simt::config.skip = true; }
  ~Skipping() {
    fakecuda::finish_all();  // completes pending frees
    simt::config.skip = false;
  }
};
#endif

struct RealStep {
  int64_t peak = 0;
  Totals totals;
};

RealStep real_step(const ModelConfig& config, DType compute, const StepShape& shape) {
  Profile profile;
  Context ctx{testing::backend(kThreads), compute, nullptr, &profile};
#ifdef RODIMUS_TEST_CUDA
  const Skipping skipping;
#endif
  memory::reset_peak();
  const int64_t before = memory::stats(kDevice).in_use;
  Model model(config, ctx.exec, compute, /*grads=*/true);
  initialize(ctx.exec, model.parameters(), 1);
  const auto optimizer = make_optimizer(ctx.exec, model.parameters(), {});
  const auto communicator = make_single();
  const std::vector<int32_t> ids(static_cast<size_t>(shape.B * shape.T), 0);
  const auto tensor = [&] { return to_device(ctx.exec, ids, {shape.B, shape.T}); };
  Stepper stepper{.ctx = ctx,
                  .model = model,
                  .optimizer = *optimizer,
                  .communicator = *communicator,
                  .tokens = shape.B * shape.T * shape.micro_batches,
                  .micro_batches = shape.micro_batches,
                  .recompute = shape.recompute,
                  .next = [&] {
                    return BatchTensors{tensor(), tensor(), shape.documents ? tensor() : Tensor{}};
                  }};
  profile.start();
  const StepResult result = stepper.step(1e-3);
  profile.stop();
  EXPECT_FALSE(result.skipped);  // skipped kernels leave zeros
  return {memory::stats(kDevice).peak - before, totals_of(profile.rows())};
}

void expect_same(const ModelConfig& config, DType compute, const StepShape& shape) {
  SCOPED_TRACE(concat(config.n_layers, " layers of ", config.d_model, ", ", name_of(compute), ", ",
                      shape.micro_batches, " x ", shape.B, " x ", shape.T,
                      shape.recompute ? ", recomputed" : ""));
  const DryStep dry = dry_step(config, {testing::backend(kThreads)}, compute, shape);
  const RealStep real = real_step(config, compute, shape);
  EXPECT_EQ(dry.memory.total(), real.peak);
  Totals got = totals_of(dry.rows);
  const Totals& want = real.totals;
  EXPECT_EQ(got.size(), want.size());
  for (const auto& [label, total] : want) EXPECT_EQ(got[label], total) << label;
  const double flops = 3 * testing::flops_by_hand(config, shape.T) *
                       static_cast<double>(shape.B * shape.T * shape.micro_batches);
  EXPECT_NEAR(dry.useful_flop(), flops, 1e-9 * flops);
}

bool ran_before() {
  static bool ran = false;
  return testing::ran_before(ran);
}

TEST(DryStep, IsARealOne) {
  if (ran_before()) return;
  for (const std::string& block : block_names()) {
    for (const bool tied : {false, true}) {
      ModelConfig config;
      config.block = block;
      config.vocab_size = tied ? 61 : 700;
      config.d_model = 32;
      config.n_layers = 3;
      config.n_heads = 4;
      config.mem_size = 16;
      config.tied = tied;
      if (tied) {
        config.n_heads_k = 2;
        config.n_heads_v = 1;
        config.window = 9;
        config.expand = 1.5;
      }
      for (const DType compute : {DType::f32, DType::bf16}) {
        for (const bool recompute : {false, true}) {
          expect_same(
              config, compute,
              {.B = 2, .T = 70, .micro_batches = 3, .recompute = recompute, .documents = tied});
        }
      }
    }
  }
}

// As configured for one rank. Presets that are too slow for CI have fewer layers, or run only if
// RODIMUS_ALL_PRESETS is set.
TEST(DryStep, OfAPresetIsARealOne) {
  if (ran_before()) return;
  const std::filesystem::path folder = std::filesystem::path(RODIMUS_SOURCE_DIR) / "configs";
  const bool all = std::getenv("RODIMUS_ALL_PRESETS") != nullptr;
  int presets = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".toml") continue;
    ++presets;
    Config config = load_config(entry.path(), {});
    config.model.n_layers = std::min<int64_t>(config.model.n_layers, 2);
    const bool small = config.model.d_model <= 128;
    if (!small && !all) continue;
    SCOPED_TRACE(entry.path().native());
    for (const DType compute : {DType::f32, DType::bf16}) {
      for (const bool recompute : {false, true}) {
        expect_same(config.model, compute,
                    {.B = small ? 4 : 1, .T = config.data.seq_len, .recompute = recompute});
      }
    }
  }
  EXPECT_GE(presets, 6);
}

TEST(DryStep, OfALargeModelTakesNoTimeAndNoMemory) {
  const int64_t reserved = memory::stats().reserved;
  ModelConfig config;
  config.vocab_size = 200000;
  config.d_model = 8192;
  config.n_layers = 80;
  config.n_heads = 64;
  const StepShape shape{.B = 8, .T = 8192, .micro_batches = 64};
  const DryStep gpu = dry_step(config, {Cuda{}}, DType::bf16, shape);
  EXPECT_GT(gpu.parameters, int64_t{40} << 30);
  EXPECT_GT(gpu.memory.activations, int64_t{1} << 40);
  EXPECT_GE(gpu.memory.parameters, 6 * gpu.parameters);
  EXPECT_EQ(gpu.memory.moments, 2 * gpu.memory.gradients);
  EXPECT_EQ(gpu.memory.batch, 2 * 4 * 8 * 8192);
  int64_t parts = 0;
  for (const auto& [name, bytes] : gpu.parts) parts += bytes;
  EXPECT_EQ(parts, gpu.memory.total());
  // All micro-batches cost the same.
  const DryStep one = dry_step(config, {Cuda{}}, DType::bf16, {.B = 8, .T = 8192});
  EXPECT_DOUBLE_EQ(gpu.useful_flop(), 64 * one.useful_flop());
  EXPECT_EQ(memory::stats().reserved, reserved);
}

TEST(DryStep, WithoutAVocabularyLeavesOutWhatNeedsOne) {
  ModelConfig config;
  config.vocab_size = 500;
  config.d_model = 32;
  config.n_layers = 2;
  config.n_heads = 2;
  const DryStep with = dry_step(config, {Cpu{1}}, DType::f32, {.T = 16});
  config.vocab_size = 0;
  const DryStep without = dry_step(config, {Cpu{1}}, DType::f32, {.T = 16});
  EXPECT_EQ(with.parameters - without.parameters, 2 * 500 * 32);
  EXPECT_EQ(with.useful_flop() - without.useful_flop(), 3 * 16 * matmul_flops(1, 500, 32));
}

}  // namespace
}  // namespace rodimus
