// A dry step matches a real one: the same allocator peak, the same calls, FLOPs and bytes. On the
// emulator kernels and products do nothing, so that whole presets are fast enough for a test.
#include "train/dry_step.h"

#include <gtest/gtest.h>

#include "layers/blocks.h"
#include "tests/train/model_flops.h"
#include "tests/train/real_step.h"
#include "train/config/config.h"

namespace rodimus {
namespace {

using testing::kDevice;
using testing::RealStep;
using testing::Totals;

constexpr int kThreads = 2;

void expect_same(const ModelConfig& config, DType compute, const StepShape& shape) {
  SCOPED_TRACE(concat(config.n_layers, " layers of ", config.d_model, ", ", name_of(compute), ", ",
                      shape.micro_batches, " x ", shape.B, " x ", shape.T,
                      shape.recompute ? ", recomputed" : ""));
  const DryStep dry = dry_step(config, {testing::backend(kThreads)}, compute, shape);
  const RealStep real = testing::real_step(testing::backend(kThreads), config, compute, shape);
  EXPECT_EQ(dry.memory.total(), real.peak);
  Totals got = testing::totals_of(dry.rows);
  const Totals& want = real.totals;
  EXPECT_EQ(got.size(), want.size());
  for (const auto& [label, total] : want) EXPECT_EQ(got[label], total) << label;
  const double flops = 3 * testing::flops_by_hand(config, shape.T) *
                       static_cast<double>(shape.B * shape.T * shape.micro_batches);
  EXPECT_NEAR(dry.useful_flop(), flops, 1e-9 * flops);
}

TEST(DryStep, IsARealOne) {
  static bool ran = false;
  if (testing::ran_before(ran)) return;
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

// As configured, for one rank. The CPU runs its kernels and touches its memory: there the small
// presets run with two layers, and with RODIMUS_ALL_PRESETS also the others, with at most 512
// tokens and as far as 10 GiB hold them.
TEST(DryStep, OfAPresetIsARealOne) {
  static bool ran = false;
  if (testing::ran_before(ran)) return;
  const std::filesystem::path folder = std::filesystem::path(RODIMUS_SOURCE_DIR) / "configs";
  constexpr int64_t kMostOnCpu = int64_t{10} << 30;
  const bool computes = kDevice == Device::cpu;
  const bool all = !computes || std::getenv("RODIMUS_ALL_PRESETS") != nullptr;
  int presets = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".toml") continue;
    ++presets;
    Config config = load_config(entry.path(), {});
    const bool small = config.model.d_model <= 128;
    if (!small && !all) continue;
    StepShape shape{.B = small ? 4 : 1, .T = config.data.seq_len};
    if (computes) {
      config.model.n_layers = std::min<int64_t>(config.model.n_layers, 2);
      shape.T = std::min<int64_t>(shape.T, 512);
      const DryStep most = dry_step(config.model, {Cpu{kThreads}}, DType::bf16, shape);
      if (most.memory.total() > kMostOnCpu) continue;
    }
    SCOPED_TRACE(entry.path().native());
    for (const DType compute : {DType::f32, DType::bf16}) {
      for (const bool recompute : {false, true}) {
        shape.recompute = recompute;
        expect_same(config.model, compute, shape);
      }
    }
  }
  EXPECT_GE(presets, 7);
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
