// What `rodimus eval` does, against the float64 losses of the authors' model: parameters go through
// a checkpoint with its configuration, tokens through shards.
#include "train/evaluate.h"

#include "checkpoints/checkpoint.h"
#include "data/shard_writer.h"
#include "tests/data/temporary_folder.h"
#include "tests/layers/golden_model.h"
#include "train/load_model.h"

namespace rodimus::testing {
namespace {

class EvaluateGolden : public ::testing::TestWithParam<std::filesystem::path> {
 protected:
  EvaluateGolden() : golden_(GetParam()), shape_(golden_.shape("input_ids")) {
    write_checkpoint();
    write_shards();
    loaded_ = load_model(folder_.path() / "run", ctx_.exec, "f32", nullptr);
  }

  void write_checkpoint() {
    Config config;
    config.model = golden_config(golden_);
    Model model(config.model, ctx_.exec, ctx_.compute, /*grads=*/false);
    load_golden(golden_, ctx_.exec, model);
    const FlatLayout layout = layout_of(model.parameters());
    const OwnedArray params{"params", model.parameters().values.data<float>()};
    TrainState state;
    state.config_toml = to_toml(config);
    save_checkpoint(folder_.path() / "run", state, layout, {0, layout.size}, {&params, 1},
                    *communicator_);
  }

  // One shard per row, as windows run through all documents of a shard.
  void write_shards() {
    const std::vector<int32_t> ids = golden_.i32("input_ids");
    ShardInfo info;
    info.vocab_size = static_cast<int64_t>(golden_.number("vocab_size"));
    for (int64_t b = 0; b < shape_[0]; ++b) {
      const auto prefix = folder_.path() / ("row" + std::to_string(b));
      ShardWriter writer(prefix, info);
      writer.add_document(std::span(ids).subspan(static_cast<size_t>(b * shape_[1]),
                                                 static_cast<size_t>(shape_[1])),
                          0);
      writer.close();
      writer.publish();
      shards_.push_back(prefix);
    }
  }

  Dataset data() const {
    return Dataset({.paths = shards_,
                    .seq_len = shape_[1] - 1,
                    .vocab_size = loaded_.config.model.vocab_size});
  }

  void expect_golden(const std::optional<EvalResult>& result) const {
    ASSERT_TRUE(result.has_value());
    EXPECT_EQ(result->tokens, shape_[0] * (shape_[1] - 1));
    // The error of a mean of f32 losses: a few eps (6e-8) each from the logits on.
    EXPECT_TRUE(close(std::vector{result->loss()}, golden_.array("loss"), 1e-6));
  }

  TemporaryFolder folder_;
  Golden golden_;
  std::vector<int64_t> shape_;  // (B, T)
  Context ctx_{Cpu{2}, DType::f32, nullptr};
  std::unique_ptr<Communicator> communicator_ = make_single();
  std::vector<std::filesystem::path> shards_;
  LoadedModel loaded_;
};

TEST_P(EvaluateGolden, Windows) {
  for (const int64_t micro_batch : {1, 2, 100}) {
    EvalOptions options;
    options.micro_batch = micro_batch;
    expect_golden(evaluate_windows(*loaded_.model, ctx_, data(), options, *communicator_));
  }
}

TEST_P(EvaluateGolden, DocumentsWithCarriedStateInAnyPieces) {
  for (const int64_t chunk : {int64_t{7}, int64_t{64}, shape_[1]}) {
    SCOPED_TRACE(concat("pieces of ", chunk));
    expect_golden(evaluate_documents(*loaded_.model, ctx_, data(), chunk, {}, *communicator_));
  }
}

INSTANTIATE_TEST_SUITE_P(Files, EvaluateGolden, ::testing::ValuesIn(golden_files("models", "")),
                         [](const auto& param) { return golden_name(param.param); });

}  // namespace
}  // namespace rodimus::testing
