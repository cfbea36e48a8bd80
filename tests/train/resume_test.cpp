// Where a run starts, and what it refuses to start from. Kills and multiple ranks are tested in
// tests/e2e.
#include "train/resume.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "kernels/device.h"
#include "tests/support/failure_of.h"
#include "train/config/config_schema.h"
#include "train/inference/load_model.h"
#include "train/prepare_run.h"
#include "train/run_start.h"
#include "train/run_state.h"
#include "train/schedule.h"

namespace rodimus {
namespace {

using testing::failure_of;
using testing::kNoFailure;

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
    optimizer_ = make_optimizer(exec_, model_->parameters(), config_.optimizer);
    initialize(exec_, model_->parameters(), 1);
  }
  ~ResumeTest() override { fs::remove_all(folder_); }

  fs::path save(int64_t step) {
    const auto single = make_single();
    ParameterBuffers& buffers = model_->parameters();
    RunState run = run_;
    run.step = step;
    run.sample = static_cast<uint64_t>(step) * 8;
    std::vector<OwnedArray> arrays{{"params", buffers.values.data<float>()}};
    for (OptimizerState& part : optimizer_->state())
      arrays.push_back({part.name, part.tensor.data<float>()});
    TrainState stored = stored_form(run, resolve(config_, {}), "");
    // Including what an earlier version would have left open.
    stored.config_toml = to_toml(config_);
    return save_checkpoint(folder_, stored, layout_of(buffers), {0, buffers.values.numel()}, arrays,
                           *single);
  }

  std::optional<fs::path> start(const std::string& resume) {
    StartOptions options;
    options.resume = resume;
    const RunStart start = find(options);
    if (start.from == RunStart::From::nothing) return std::nullopt;
    return start.checkpoint;
  }
  RunStart find(const StartOptions& options) {
    return find_start(config_.run.output, options,
                      [&](const std::string& line) { notes_.push_back(line); });
  }

  fs::path folder_;
  Exec exec_ = Cpu{1};
  Config config_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Optimizer> optimizer_;
  RunState run_;  // what save() stores besides the step
  std::vector<std::string> notes_;
};

TEST_F(ResumeTest, StartsFreshWithoutCheckpoints) {
  EXPECT_EQ(start("auto"), std::nullopt);
  EXPECT_EQ(start("none"), std::nullopt);
  EXPECT_THROW(start(folder_ / "absent"), Error);
}

TEST_F(ResumeTest, TakesTheNewestSoundOneAndSaysWhatItPassedOver) {
  const fs::path first = save(10), second = save(20);
  EXPECT_EQ(start("auto"), second);
  fs::resize_file(second / "rank_0000.h5", 100);
  EXPECT_EQ(start("auto"), first);
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_NE(notes_[0].find("step_00000020"), std::string::npos) << notes_[0];
  fs::resize_file(first / "rank_0000.h5", 100);
  EXPECT_NE(failure_of([&] { start("auto"); }).find("none of its 2"), std::string::npos);
}

TEST_F(ResumeTest, OverwritesNothingUnasked) {
  const fs::path first = save(10);
  const fs::path second = save(20);
  EXPECT_NE(failure_of([&] { start("none"); }).find("already holds 2"), std::string::npos);
  EXPECT_NE(failure_of([&] { start(first); }).find("already holds step 20"), std::string::npos);
  EXPECT_EQ(start(second), second);
  // Even if the later one is damaged, which is when people name an older one.
  fs::resize_file(second / "manifest.json", 3);
  EXPECT_NE(failure_of([&] { start(first); }).find("already holds step 20"), std::string::npos);
}

TEST_F(ResumeTest, NamesTheParameterThatIsNotFinite) {
  Parameter* const victim = model_->parameters().parameters[3];
  victim->var.value.data<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  const CheckpointReader checkpoint(save(10));
  const std::string error =
      failure_of([&] { restore(exec_, checkpoint, model_->parameters(), *optimizer_); });
  EXPECT_NE(error.find(victim->name), std::string::npos) << error;
  EXPECT_NE(error.find("earlier checkpoint"), std::string::npos) << error;
}

TEST_F(ResumeTest, RefusesMomentsThatAreNotFinite) {
  optimizer_->state().back().tensor.data<float>()[7] = std::numeric_limits<float>::infinity();
  const CheckpointReader checkpoint(save(10));
  EXPECT_NE(failure_of([&] {
              restore(exec_, checkpoint, model_->parameters(), *optimizer_);
            }).find("moments"),
            std::string::npos);
}

TEST_F(ResumeTest, RefusesAnotherModelAndNamesWhatElseChanged) {
  const Config before = config_of(CheckpointReader(save(10)));
  const auto changes = [&](const Config& now) { return changes_at_resume(before, now, false); };
  EXPECT_TRUE(changes(config_).empty());
  Config other = config_;
  other.model.window = 7;
  EXPECT_EQ(
      failure_of([&] { changes(other); }),
      "model.window is 7, but the checkpoint was written with \"full\"; set it back, or start "
      "a new run with another run.output");
  other = config_;
  other.run.seed = 9;
  EXPECT_NE(failure_of([&] { changes(other); }).find("run.seed"), std::string::npos);
  other = config_;
  other.run.global_batch = 16;
  other.run.threads = 3;  // cannot affect the result
  EXPECT_EQ(changes(other),
            std::vector<std::string>{"run.global_batch is 16, was 8 in the checkpoint"});
  other = config_;
  other.run.micro_batch = 3;
  EXPECT_EQ(changes(other),
            std::vector<std::string>{"run.micro_batch is 3, was 0 in the checkpoint: results may "
                                     "differ by rounding"});
}

TEST_F(ResumeTest, ComparesModelsByWhatTheyCompute) {
  const Config before = config_of(CheckpointReader(save(10)));
  Config same = config_;
  same.model.gate_rank = config_.model.value_gate_rank();  // the default, written out
  same.model.n_heads_v = config_.model.heads_v();
  same.model.expand = 1.99;  // rounded up to the same size
  EXPECT_TRUE(changes_at_resume(before, same, false).empty());
  EXPECT_TRUE(changes_of_model(before, same).empty());
  Config other = config_;
  other.model.window = 7;
  EXPECT_EQ(changes_of_model(before, other),
            std::vector<std::string>{"model.window is 7, was \"full\" in the checkpoint"});
  // Without attention the window does not matter.
  Config plain = before;
  plain.model.block = other.model.block = "rodimus";
  EXPECT_TRUE(changes_at_resume(plain, other, false).empty());
}

// A newly added key is reported when it changes, unless its line in the table says otherwise.
TEST_F(ResumeTest, EveryKeyOfTheModelTheOrderOfDataAndTheOptimizerMustStay) {
  std::vector<std::string> refused;
  for (const ConfigField& field : config_fields(config_))
    if (field.at_resume == AtResume::refused && field.section != "model")
      refused.push_back(field.key());
  // The optimizer too, because the checkpoint holds its state.
  EXPECT_EQ(refused, (std::vector<std::string>{"data.seq_len", "data.shuffle", "optimizer.name",
                                               "run.seed"}));
  for (const ConfigField& field : config_fields(config_)) {
    if (field.section == "model") {
      EXPECT_EQ(field.at_resume, AtResume::refused) << field.key();
    }
  }
}

TEST_F(ResumeTest, KeepsTheTypeThatTheRunBeganWith) {
  config_.run.compute = "bf16";
  const Config bf16 = config_of(CheckpointReader(save(10)));
  Config now = config_;
  now.run.compute = "auto";  // whatever this machine would choose
  now = continued(now, bf16, false);
  EXPECT_EQ(now.run.compute, "bf16");
  EXPECT_TRUE(changes_at_resume(bf16, now, false).empty());

  now.run.compute = "f32";
  EXPECT_EQ(continued(now, bf16, false).run.compute, "f32");
  const std::string error = failure_of([&] { changes_at_resume(bf16, now, false); });
  for (const char* word : {"\"f32\"", "\"bf16\"", "--allow-other-compute"})
    EXPECT_NE(error.find(word), std::string::npos) << error;
  EXPECT_EQ(changes_at_resume(bf16, now, true),
            std::vector<std::string>{"run.compute is \"f32\", was \"bf16\" in the checkpoint"});
  now.run.compute = "auto";  // with --allow-other-compute: this machine's choice
  EXPECT_EQ(continued(now, bf16, true).run.compute, "auto");

  config_.run.compute = "auto";  // as stored by version 0.1: the type is unknown
  const Config unknown = config_of(CheckpointReader(save(20)));
  now.run.compute = "f32";
  EXPECT_EQ(failure_of([&] { changes_at_resume(unknown, now, false); }), kNoFailure);
  EXPECT_EQ(continued(now, unknown, false).run.compute, "f32");
}

TEST_F(ResumeTest, KeepsTheDeviceThatTheRunBeganOn) {
  config_.run.device = "cpu";
  Config now = config_;
  now.run.device = "auto";
  EXPECT_EQ(continued(now, config_of(CheckpointReader(save(10))), false).run.device, "cpu");
  if (find_gpus().count > 0) return;  // the assertions below need a machine without a GPU
  config_.run.device = "cuda";
  save(20);
  config_.run.device = "auto";
  config_.data.train = {"none"};
  const auto single = make_single();
  const auto prepare = [&] { prepare_run(config_, {}, *single); };
  const std::string error = failure_of(prepare);
  EXPECT_NE(error.find("run.device=cpu"), std::string::npos) << error;
  config_.run.device = "cpu";
  EXPECT_NE(failure_of(prepare).find("none"), std::string::npos) << "gets as far as the shards";
}

TEST_F(ResumeTest, WarnsOfAJumpThatTheScheduleDidNotPlan) {
  Config before = config_;
  before.run.steps = 6;
  before.optimizer.warmup_steps = 2;
  EXPECT_EQ(rate_change(before, before, 6).line, "");
  for (int64_t step = 1; step < 6; ++step) {  // warm-up doubles the rate, as planned
    const RateChange same = rate_change(before, before, step);
    EXPECT_FALSE(same.jump) << step;
    EXPECT_NE(same.line.find("learning rate"), std::string::npos);
  }
  Config longer = before;
  longer.run.steps = 12;
  EXPECT_TRUE(rate_change(before, longer, 6).jump);
  EXPECT_NE(rate_change(before, longer, 6)
                .line.find(fmt::format("{:.3g} in the last step, {:.3g} in the next",
                                       learning_rate(before.optimizer, 6, 5),
                                       learning_rate(longer.optimizer, 12, 6))),
            std::string::npos);
  // Extending a stable phase changes nothing so far.
  before.optimizer.schedule = longer.optimizer.schedule = "wsd";
  before.optimizer.decay_steps = longer.optimizer.decay_steps = 3;
  EXPECT_FALSE(rate_change(before, longer, 4).jump);
  EXPECT_TRUE(rate_change(before, longer, 6).jump);  // its decay had already ended
}

TEST_F(ResumeTest, BeginsANewRunOnceAndResumesItAfterwards) {
  const fs::path other = folder_.string() + "_other";
  fs::remove_all(other);
  StartOptions options;
  options.init_from = save(10);
  config_.run.output = other;
  RunStart start = find(options);
  EXPECT_EQ(start.from, RunStart::From::init);
  EXPECT_EQ(start.checkpoint, options.init_from);

  // When repeated, it resumes a run that began this way, and no other.
  fs::create_directories(other);
  run_.init_from = named_for_init(options.init_from);
  fs::rename(save(20), other / "step_00000020");
  start = find(options);
  EXPECT_EQ(start.from, RunStart::From::resume);
  EXPECT_EQ(start.checkpoint, other / "step_00000020");
  options.init_from += "/";  // as a shell completes it
  EXPECT_EQ(find(options).from, RunStart::From::resume);

  options.init_moments = true;
  EXPECT_NE(failure_of([&] { find(options); }).find("without moments"), std::string::npos);
  options.init_moments = false;
  options.init_from = folder_;
  EXPECT_NE(failure_of([&] { find(options); }).find("began with"), std::string::npos);
  run_.init_from = "";
  fs::rename(save(30), other / "step_00000030");
  EXPECT_NE(failure_of([&] { find(options); }).find("parameters of its own"), std::string::npos);
  fs::remove_all(other);
}

TEST_F(ResumeTest, LeavesDataOutOnce) {
  StartOptions options;
  const fs::path named = save(10);
  options.resume = named;
  options.skip_steps = 3;
  EXPECT_EQ(find(options).skip_steps, 3);
  options.resume = named / "";  // as a shell completes it
  EXPECT_EQ(find(options).skip_steps, 3);
  const fs::path other = save(20);  // of a run that skipped nothing
  EXPECT_NE(failure_of([&] { find(options); }).find("already holds step 20"), std::string::npos);
  fs::remove_all(other);

  // The same step, saved again after an evaluation: the data was already skipped there.
  run_.left_out = {{10, 3, 80, 104}};
  EXPECT_EQ(save(10), named);
  EXPECT_EQ(find(options).checkpoint, named);
  EXPECT_EQ(find(options).skip_steps, 0);

  const fs::path later = save(20);
  RunStart again = find(options);
  EXPECT_EQ(again.checkpoint, later);
  EXPECT_EQ(again.skip_steps, 0);
  EXPECT_EQ(run_state(CheckpointReader(later)).samples_left_out(), 24u);
  fs::remove_all(named);  // pruned
  EXPECT_EQ(find(options).checkpoint, later);
  options.skip_steps = 4;
  EXPECT_THROW(find(options), Error);
}

TEST_F(ResumeTest, FindsTheRunFolderHoweverItIsWritten) {
  const fs::path step = save(10);
  for (const fs::path& path : {step, step / "", step / ".", folder_ / "x" / ".." / step.filename()})
    EXPECT_EQ(run_folder_of(path), fs::canonical(folder_)) << path;
}

TEST_F(ResumeTest, RefusesOptionsThatExcludeEachOther) {
  const auto error = [&](const StartOptions& options) {
    return failure_of([&] { find(options); });
  };
  const std::string path = save(10);
  StartOptions options;
  options.skip_steps = 3;
  for (const std::string& resume : {std::string("auto"), std::string("none"), folder_.string()}) {
    options.resume = resume;  // each start would skip more
    EXPECT_NE(error(options).find("--skip-steps needs --resume PATH"), std::string::npos) << resume;
  }
  options = {};
  options.resume = path;
  options.init_from = path;
  EXPECT_NE(error(options).find("give only one"), std::string::npos);
  options = {};
  options.init_moments = true;
  EXPECT_NE(error(options).find("needs --init-from"), std::string::npos);
  options = {};
  options.resume = "";
  EXPECT_NE(error(options).find("--resume is empty"), std::string::npos);
}

}  // namespace
}  // namespace rodimus
