// Where a run starts, and what it refuses to start from. Kills and ranks are in tests/e2e.
#include "train/resume.h"

#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <limits>

#include "train/load_model.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

const char* const kToml =
    "[model]\nvocab_size = 40\nd_model = 32\nn_layers = 1\nn_heads = 2\nmem_size = 8\n";

class ResumeTest : public ::testing::Test {
 protected:
  ResumeTest() : folder_(fs::path(::testing::TempDir()) / "resume_test") {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    config_ = parse_config(kToml, "test", {"run.output=" + folder_.string()});
    model_ = std::make_unique<Model>(config_.model, exec_, DType::f32, true);
    optimizer_ = std::make_unique<AdamW>(exec_, model_->parameters(), config_.optimizer);
    initialize(exec_, model_->parameters(), 1);
  }
  ~ResumeTest() override { fs::remove_all(folder_); }

  fs::path save(int64_t step) {
    const auto single = make_single();
    ParameterBuffers& buffers = model_->parameters();
    TrainState state;
    state.step = step;
    state.state_json = "{}";
    state.config_toml = to_toml(config_);
    const std::array<OwnedArray, 3> arrays{OwnedArray{"params", buffers.values.data<float>()},
                                           OwnedArray{"adam_m", optimizer_->m().data<float>()},
                                           OwnedArray{"adam_v", optimizer_->v().data<float>()}};
    return save_checkpoint(folder_, state, layout_of(buffers), {0, buffers.values.numel()}, arrays,
                           *single);
  }

  template <class F>
  std::string error_of(F&& run) {
    try {
      run();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  std::optional<fs::path> start(const std::string& resume) {
    return find_start(config_, resume, [&](const std::string& line) { notes_.push_back(line); });
  }

  fs::path folder_;
  Exec exec_ = Cpu{1};
  Config config_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<AdamW> optimizer_;
  std::vector<std::string> notes_;
};

TEST_F(ResumeTest, StartsFreshWithoutCheckpoints) {
  EXPECT_EQ(start("auto"), std::nullopt);
  EXPECT_EQ(start("none"), std::nullopt);
  EXPECT_NE(error_of([&] { start(folder_ / "absent"); }), "");
}

TEST_F(ResumeTest, TakesTheNewestSoundOneAndSaysWhatItPassedOver) {
  const fs::path first = save(10), second = save(20);
  EXPECT_EQ(start("auto"), second);
  fs::resize_file(second / "rank_0000.h5", 100);
  EXPECT_EQ(start("auto"), first);
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_NE(notes_[0].find("step_00000020"), std::string::npos) << notes_[0];
  fs::resize_file(first / "rank_0000.h5", 100);
  EXPECT_NE(error_of([&] { start("auto"); }).find("none of its 2"), std::string::npos);
}

TEST_F(ResumeTest, OverwritesNothingUnasked) {
  const fs::path first = save(10);
  const fs::path second = save(20);
  EXPECT_NE(error_of([&] { start("none"); }).find("already holds 2"), std::string::npos);
  EXPECT_NE(error_of([&] { start(first); }).find("already holds step 20"), std::string::npos);
  EXPECT_EQ(start(second), second);
  // Also when the later one is damaged, which is when somebody names an older one.
  fs::resize_file(second / "manifest.json", 3);
  EXPECT_NE(error_of([&] { start(first); }).find("already holds step 20"), std::string::npos);
}

TEST_F(ResumeTest, NamesTheParameterThatIsNotFinite) {
  Parameter* const victim = model_->parameters().parameters[3];
  victim->var.value.data<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  const CheckpointReader checkpoint(save(10));
  const std::string error =
      error_of([&] { restore(exec_, checkpoint, model_->parameters(), *optimizer_); });
  EXPECT_NE(error.find(victim->name), std::string::npos) << error;
  EXPECT_NE(error.find("earlier checkpoint"), std::string::npos) << error;
}

TEST_F(ResumeTest, RefusesMomentsThatAreNotFinite) {
  optimizer_->v().data<float>()[7] = std::numeric_limits<float>::infinity();
  const CheckpointReader checkpoint(save(10));
  EXPECT_NE(error_of([&] {
              restore(exec_, checkpoint, model_->parameters(), *optimizer_);
            }).find("moments"),
            std::string::npos);
}

TEST_F(ResumeTest, RefusesAnotherModelAndNamesWhatElseChanged) {
  const CheckpointReader checkpoint(save(10));
  require_same_run(config_, checkpoint);
  EXPECT_TRUE(changed_keys(config_, checkpoint).empty());
  Config other = config_;
  other.model.window = 7;
  EXPECT_NE(error_of([&] { require_same_run(other, checkpoint); }).find("model.window"),
            std::string::npos);
  other = config_;
  other.run.seed = 9;
  EXPECT_NE(error_of([&] { require_same_run(other, checkpoint); }).find("run.seed"),
            std::string::npos);
  other = config_;
  other.run.global_batch = 16;
  other.run.threads = 3;  // cannot matter
  EXPECT_EQ(changed_keys(other, checkpoint),
            std::vector<std::string>{"run.global_batch is 16, was 8 in the checkpoint"});
}

}  // namespace
}  // namespace rodimus
