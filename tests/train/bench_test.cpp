// The figures of `rodimus bench` and the prediction of memory, compared with steps that really run.
#include "train/report/bench.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/memory.h"
#include "layers/blocks.h"
#include "tests/train/model_flops.h"
#include "tests/train/run_command.h"
#include "train/commands/commands.h"
#include "train/config/resolve.h"
#include "train/step.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

struct Case {
  std::string name;
  ModelConfig model;
  int64_t B, T;
};

ModelConfig shape(const std::string& block, int64_t vocab, int64_t d, int64_t layers) {
  ModelConfig config;
  config.block = block;
  config.vocab_size = vocab;
  config.d_model = d;
  config.n_layers = layers;
  config.n_heads = 2;
  return config;
}

// One real optimizer step on two threads.
struct OneStep {
  Profile profile;
  int64_t peak = 0;
  StepResult result;

  OneStep(const Case& test, bool recompute, int64_t micro_batches = 1) {
    Exec exec = Cpu{2};
    Model model(test.model, exec, DType::f32, /*grads=*/true);
    initialize(exec, model.parameters(), 1);
    const auto optimizer = make_optimizer(exec, model.parameters(), {});
    const auto communicator = make_single();
    Context ctx{exec, DType::f32, nullptr, &profile};
    const std::vector<int32_t> ids(static_cast<size_t>(test.B * test.T), 3);
    Stepper stepper{
        .ctx = ctx,
        .model = model,
        .optimizer = *optimizer,
        .communicator = *communicator,
        .tokens = test.B * test.T * micro_batches,
        .micro_batches = micro_batches,
        .recompute = recompute,
        .next = [&] {
          const Shape shape{test.B, test.T};
          return BatchTensors{to_device(ctx.exec, ids, shape), to_device(ctx.exec, ids, shape), {}};
        }};
    memory::reset_peak();
    profile.start();
    result = stepper.step(1e-3);
    profile.stop();
    peak = memory::stats().peak;
  }
};

std::vector<Case> flop_cases() {
  std::vector<Case> cases;
  for (const std::string& block : block_names()) {
    for (const bool tied : {false, true}) {
      Case test{"", shape(block, 61, 32, 2), 2, 70};  // T: one full chunk and part of another
      test.model.tied = tied;
      test.model.mem_size = 16;
      cases.push_back(test);
      test.model.window = 9;
      test.model.n_heads = 4;
      test.model.n_heads_k = 2;
      test.model.n_heads_v = 1;
      test.model.gate_rank = 5;
      test.model.expand = 1.5;
      test.model.ffn_ratio = 3;
      cases.push_back(test);
    }
  }
  return cases;
}

TEST(Bench, TheTableCountsExactlyTheFlopsOfTheConfiguration) {
  for (const Case& test : flop_cases()) {
    for (const bool recompute : {false, true}) {
      const OneStep step(test, recompute, /*micro_batches=*/3);
      double flop = 0, again = 0;
      for (const Profile::Row& row : step.profile.rows())
        (row.phase == Profile::Phase::recomputed ? again : flop) += row.cost.flop;
      const double tokens = 3.0 * static_cast<double>(test.B * test.T);
      const double forward = testing::flops_by_hand(test.model, test.T) * tokens;
      EXPECT_NEAR(flop, 3 * forward, 1e-9 * forward);  // sums of integers, divided by T in between
      const double head = matmul_flops(1, test.model.vocab_size, test.model.d_model) * tokens;
      // Nor does a replay need the product that ends a block: its result is not read again.
      const int64_t width =
          test.model.block == "rodimus_plus" ? test.model.d_ff() : test.model.d_inner();
      const double last = static_cast<double>(test.model.n_layers) *
                          matmul_flops(1, test.model.d_model, width) * tokens;
      EXPECT_NEAR(again, recompute ? forward - head - last : 0, 1e-9 * forward);
    }
  }
}

TEST(Bench, EveryPartOfAStepHasItsRow) {
  Case test = flop_cases().back();
  const OneStep step(test, false);
  EXPECT_FALSE(step.result.skipped);
  EXPECT_GT(step.result.grad_norm, 0);
  std::string names;
  for (const Profile::Row& row : step.profile.rows()) {
    names += concat("[", row.op.name, " ", name_of(row.phase), "]");
    EXPECT_GE(row.seconds, 0) << row.op.name;
  }
  for (const char* part :
       {"[linear forward]",         "[linear backward]",     "[ddts forward]",
        "[ddts backward]",          "[ddts_gates backward]", "[short_conv backward]",
        "[residual_norm backward]", "[gated_norm backward]", "[sigmoid_gate backward]",
        "[rotary backward]",        "[ska backward]",        "[swiglu backward]",
        "[embedding forward]",      "[embedding backward]",  "[head_loss both]",
        "[gradient add backward]",  "[zero gradients step]", "[batch step]",
        "[all-reduce step]",        "[gradient norm step]",  "[AdamW step]",
        "[unaccounted step]"})
    EXPECT_NE(names.find(part), std::string::npos) << part << " in " << names;
}

TEST(Bench, StateAtAPositionHasTheSizeOfAReadOne) {
  for (const Case& test : flop_cases()) {
    Context ctx{Cpu{1}, DType::f32, nullptr};
    Model model(test.model, ctx.exec, DType::f32, false);
    initialize(ctx.exec, model.parameters(), 1);
    const auto read = [&](ModelState& state, int64_t count) {
      const std::vector<int32_t> ids(static_cast<size_t>(count), 3);
      return model.next_logits(ctx, to_device(ctx.exec, ids, {1, count}), state);
    };
    ModelState want;
    read(want, 30);
    ModelState got = state_at(ctx, model, 30);
    read(want, 1);
    EXPECT_TRUE(std::isfinite(read(got, 1).data<float>()[0]));
    EXPECT_EQ(got.position, want.position);
    ASSERT_EQ(got.blocks.size(), want.blocks.size());
    EXPECT_EQ(got.blocks[0].memory.shape(), want.blocks[0].memory.shape());
    EXPECT_EQ(got.blocks[0].conv_history.shape(), want.blocks[0].conv_history.shape());
    EXPECT_EQ(got.blocks[0].keys.defined(), want.blocks[0].keys.defined());
  }
}

class BenchCommand : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::string config(const std::string& model) {
    std::ofstream(folder_ / "c.toml")
        << "[model]\nd_model = 32\nn_layers = 2\nn_heads = 2\n"
        << model << "\n[data]\nseq_len = 64\n[run]\nglobal_batch = 2\n";
    return folder_ / "c.toml";
  }

  static std::string run(const std::vector<std::string>& arguments) {
    return testing::run_command(add_bench_command, arguments);
  }

  static std::string error(const std::vector<std::string>& arguments) {
    ::testing::internal::CaptureStderr();
    std::string thrown;
    try {
      run(arguments);
    } catch (const std::exception& error) {
      thrown = error.what();
    }
    return ::testing::internal::GetCapturedStderr() + thrown;
  }

  const fs::path folder_ = fs::path(::testing::TempDir()) / "bench_test";
};

TEST_F(BenchCommand, JsonHoldsEveryFigure) {
  const std::string path = config("vocab_size = 100");
  const auto json = nlohmann::json::parse(
      run({"bench", path, "--steps", "3", "--warmup", "1", "--threads", "1", "--json"}));
  EXPECT_GT(json["machine"]["gemm_f32_gflops"], 0.0);
  EXPECT_EQ(json["machine"]["gemm_bf16_gflops"].is_null(), !has_native_bf16(Device::cpu));
  EXPECT_GT(json["machine"]["triad_gb_per_s"], 0.0);
  EXPECT_TRUE(json["device"].get<std::string>().starts_with("1 thread on the CPU"))
      << json["device"];
  EXPECT_EQ(json["config"], path);
  const auto& training = json["training"];
  double seconds = 0, gflop = 0, share = 0;
  for (const auto& op : training["ops"]) {
    seconds += op["seconds"].get<double>();
    gflop += op["gflop"].get<double>();
    share += op["share"].get<double>();
    for (const char* key : {"op", "phase", "calls", "mbytes", "gemm_share", "bandwidth_share"})
      EXPECT_TRUE(op.contains(key)) << key;
  }
  // Sums of a few dozen doubles, in another order.
  EXPECT_NEAR(seconds, training["step_s"].get<double>(), 1e-12 * seconds + 1e-15);
  EXPECT_NEAR(share, 1, 1e-12);
  EXPECT_NEAR(gflop, training["gflop_per_step"].get<double>(), 1e-9 * gflop);
  EXPECT_EQ(training["tokens_per_s"].get<double>(), 128 / training["step_s"].get<double>());
  EXPECT_GT(training["mfu"], 0.0);
  EXPECT_GT(training["memory"]["allocator_peak_bytes"], 0);
  EXPECT_GT(training["memory"]["process_bytes"], 0);
  EXPECT_GT(training["memory"]["predicted_bytes"], 0);
}

TEST_F(BenchCommand, DecodeTellsBothPositions) {
  const std::vector<std::string> arguments{
      "bench", config("vocab_size = 100\nwindow = 16"), "--decode", "--steps", "3", "--json"};
  const auto json = nlohmann::json::parse(run(arguments));
  const auto& positions = json["decode"]["positions"];
  ASSERT_EQ(positions.size(), 2u);
  EXPECT_EQ(positions[0]["position"], 1024);
  EXPECT_EQ(positions[1]["position"], 65536);
  EXPECT_EQ(positions[0]["state_bytes"], positions[1]["state_bytes"]) << "with a window";
  EXPECT_GT(positions[0]["tokens_per_s"], 0.0);
  EXPECT_FALSE(json.contains("training"));
}

TEST_F(BenchCommand, PrintsATableForPeople) {
  const std::string text =
      run({"bench", config("vocab_size = 100"), "--steps", "1", "--warmup", "0"});
  for (const char* words : {"machine ", "triad", "MFU", "predicted", "linear 32 -> 64", "AdamW",
                            "unaccounted", "total"})
    EXPECT_NE(text.find(words), std::string::npos) << words << " in\n" << text;
}

TEST_F(BenchCommand, MistakesAreSaidInOneLine) {
  const auto says = [](const std::string& text, std::initializer_list<const char*> words) {
    for (const char* word : words)
      EXPECT_NE(text.find(word), std::string::npos) << word << " in " << text;
  };
  says(error({"bench", config(""), "--steps", "1"}), {"model.vocab_size", "--set"});
  says(error({"bench", folder_ / "absent.toml"}), {"absent.toml"});
  says(error({"bench", config("vocab_size = 100"), "--set", "run.compute=f16"}), {"f16", "bf16"});
  says(error({"bench", config("vocab_size = 100"), "--set", "run.device=tpu"}), {"tpu", "cpu"});
  EXPECT_THROW(run({"bench"}), UsageError);
  EXPECT_THROW(run({"bench", "c.toml", "--steps", "0"}), UsageError);
  EXPECT_THROW(run({"bench", "c.toml", "--threads", "-1"}), UsageError);
}

}  // namespace
}  // namespace rodimus
