#include "train/inference/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "base/error.h"
#include "tests/support/failure_of.h"
#include "train/config/resolve.h"
#include "train/inference/load_model.h"
#include "train/report/inspect.h"
#include "train/run_state.h"
#include "train/signals.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

const std::string kConfig = R"([model]
vocab_size = 50
d_model = 32
n_layers = 2
n_heads = 2
mem_size = 16
window = 8
[data]
seq_len = 16
)";

Context context() { return {Cpu{1}, DType::f32, nullptr}; }

// Parameters larger than at initialisation, so that the tokens differ.
std::unique_ptr<Model> make_model(Context& ctx) {
  auto model =
      std::make_unique<Model>(parse_config(kConfig, "test", {}).model, ctx.exec, DType::f32, false);
  initialize(ctx.exec, model->parameters(), 3);
  Tensor& values = model->parameters().values;
  for (int64_t i = 0; i < values.numel(); ++i) values.data<float>()[i] *= 4;
  return model;
}

std::vector<int32_t> run(Model& model, const std::vector<int32_t>& prompt,
                         const GenerateConfig& config) {
  Context ctx = context();
  std::vector<int32_t> ids;
  generate(ctx, model, prompt, config, [&](int32_t id) {
    ids.push_back(id);
    return true;
  });
  return ids;
}

const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2};

TEST(Generate, GreedyIsTheArgmaxOfTheWholeSequence) {
  Context ctx = context();
  const auto model = make_model(ctx);
  GenerateConfig config;
  config.sampling.temperature = 0;
  config.max_tokens = 20;
  const std::vector<int32_t> got = run(*model, kPrompt, config);
  ASSERT_EQ(got.size(), 20u);
  // The model without a state, over everything so far: another path to the same logits.
  std::vector<int32_t> ids = kPrompt;
  for (const int32_t token : got) {
    const auto T = static_cast<int64_t>(ids.size());
    Tensor batch = Tensor::empty({1, T}, DType::i32);
    std::copy(ids.begin(), ids.end(), batch.data<int32_t>());
    const Tensor logits = model->logits(ctx, batch);
    const float* last = logits.data<float>() + (T - 1) * 50;
    // Rounding differs, so a near tie may be decided differently: then the logits are nearly equal.
    EXPECT_NEAR(last[token], *std::max_element(last, last + 50), 1e-4);
    ids.push_back(token);
  }
}

TEST(Generate, ChunksOfThePromptDoNotMatter) {
  Context ctx = context();
  const auto model = make_model(ctx);
  GenerateConfig config;
  config.sampling.temperature = 0;
  const std::vector<int32_t> whole = run(*model, kPrompt, config);
  for (const int64_t chunk : {1, 5, 16, 17}) {
    config.prefill_chunk = chunk;
    EXPECT_EQ(run(*model, kPrompt, config), whole) << chunk;
  }
}

TEST(Generate, SameSeedSameText) {
  Context ctx = context();
  const auto model = make_model(ctx);
  GenerateConfig config;
  config.max_tokens = 40;
  const std::vector<int32_t> first = run(*model, kPrompt, config);
  EXPECT_EQ(run(*model, kPrompt, config), first);
  config.max_tokens = 10;
  EXPECT_EQ(run(*model, kPrompt, config), std::vector<int32_t>(first.begin(), first.begin() + 10));
  config.max_tokens = 40;
  config.seed = 2;
  EXPECT_NE(run(*model, kPrompt, config), first);
}

TEST(Generate, StopsWhereItShould) {
  Context ctx = context();
  const auto model = make_model(ctx);
  GenerateConfig config;
  config.max_tokens = 40;
  const std::vector<int32_t> free = run(*model, kPrompt, config);
  config.stop = free[7];
  const auto first = std::find(free.begin(), free.end(), config.stop);
  EXPECT_EQ(run(*model, kPrompt, config), std::vector<int32_t>(free.begin(), first));
  config.stop = -1;
  config.vocab = 10;  // a tokenizer smaller than the model's table
  for (const int32_t id : run(*model, kPrompt, config)) EXPECT_LT(id, 10);
  int64_t seen = 0;
  generate(ctx, *model, kPrompt, config, [&](int32_t) { return ++seen < 3; });
  EXPECT_EQ(seen, 3);
}

// In a separate process, because a received signal cannot be reset.
TEST(GenerateDeathTest, ASignalEndsItBetweenChunksOfThePrompt) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const auto interrupted = [] {
    Context ctx = context();
    const auto model = make_model(ctx);
    install_stop_signals();
    std::raise(SIGTERM);
    int64_t tokens = 0;
    const GenerateTimes times = generate(ctx, *model, kPrompt, {}, [&](int32_t) {
      ++tokens;
      return true;
    });
    std::exit(times.prompt_tokens == 0 && times.tokens == 0 && tokens == 0 ? 0 : 1);
  };
  EXPECT_EXIT(interrupted(), ::testing::ExitedWithCode(0), "");
}

TEST(Generate, BadPromptsAreErrors) {
  Context ctx = context();
  const auto model = make_model(ctx);
  GenerateConfig config;
  EXPECT_THROW(run(*model, {}, config), Error);
  EXPECT_THROW(run(*model, {50}, config), Error);
  EXPECT_THROW(run(*model, {-1}, config), Error);
  config.vocab = 51;
  EXPECT_THROW(run(*model, kPrompt, config), Error);
}

class LoadModel : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path save(Model& model, int64_t step, const std::string& config = kConfig) {
    const FlatLayout layout = layout_of(model.parameters());
    const float* values = model.parameters().values.data<float>();
    const std::vector<OwnedArray> arrays = {
        {"params", values}, {"adam_m", values}, {"adam_v", values}};
    TrainState state;
    state.step = step;
    state.config_toml = config;
    const auto communicator = make_single();
    return save_checkpoint(folder_, state, layout, {0, layout.size}, arrays, *communicator);
  }
  std::string failure_at(const fs::path& path) {
    Context ctx = context();
    return testing::failure_of([&] { load_model(path, ctx.exec, "f32", nullptr); });
  }

  const fs::path folder_ = fs::path(::testing::TempDir()) / "load_model_test";
};

void flip_a_byte(const fs::path& file) {
  std::fstream io(file, std::ios::in | std::ios::out | std::ios::binary);
  io.seekg(0, std::ios::end);
  const auto middle = static_cast<std::streamoff>(io.tellg()) / 2;
  io.seekg(middle);
  const char c = static_cast<char>(io.get());
  io.seekp(middle);
  io.put(static_cast<char>(c ^ 1));
}

TEST_F(LoadModel, ReadsWhatWasSaved) {
  Context ctx = context();
  const auto model = make_model(ctx);
  const fs::path step = save(*model, 12);
  for (const fs::path& path : {step, folder_}) {
    const LoadedModel loaded = load_model(path, ctx.exec, "f32", nullptr);
    EXPECT_EQ(loaded.folder, step);
    EXPECT_EQ(loaded.state.step, 12);
    EXPECT_EQ(run(*loaded.model, kPrompt, {}), run(*model, kPrompt, {}));
  }
}

// One of the two types is not what this CPU would choose by default.
TEST_F(LoadModel, ComputesInTheTypeOfTheRun) {
  Context ctx = context();
  const auto model = make_model(ctx);
  const auto config = [](const std::string& compute) {
    return to_toml(parse_config(kConfig, "test", {"run.compute=" + compute}));
  };
  const std::string other[] = {"bf16", "f32"};
  for (const DType trained : {DType::f32, DType::bf16}) {
    save(*model, 12, config(name_of(trained)));
    const LoadedModel same = load_model(folder_, ctx.exec, "run", nullptr);
    EXPECT_EQ(same.compute, trained);
    const bool widens = trained == DType::bf16 && !has_native_bf16(Device::cpu);
    EXPECT_EQ(same.compute_note.empty(), !widens) << same.compute_note;
    const LoadedModel unlike =
        load_model(folder_, ctx.exec, other[trained == DType::bf16], nullptr);
    EXPECT_NE(unlike.compute, trained);
    EXPECT_NE(unlike.compute_note, "");
  }
  save(*model, 12, config("auto"));  // as stored by version 0.1
  const LoadedModel unknown = load_model(folder_, ctx.exec, "run", nullptr);
  EXPECT_EQ(unknown.compute, has_native_bf16(Device::cpu) ? DType::bf16 : DType::f32);
  EXPECT_NE(unknown.compute_note.find("does not record"), std::string::npos);
}

TEST_F(LoadModel, TakesTheNewestSoundOneAndInspectSaysWhy) {
  Context ctx = context();
  const auto model = make_model(ctx);
  save(*model, 1);
  const fs::path newer = save(*model, 2);
  EXPECT_TRUE(inspect(folder_).problems.empty());
  EXPECT_EQ(inspect(folder_).facts["step"], 2);
  EXPECT_EQ(inspect(newer).facts["model"]["parameters"], model->parameters().count());
  for (const auto& entry : fs::directory_iterator(newer))
    if (entry.path().extension() == ".h5" && entry.path().filename() != "checkpoint.h5")
      flip_a_byte(entry.path());
  std::vector<std::string> problems;
  EXPECT_EQ(load_model(folder_, ctx.exec, "f32", &problems).state.step, 1);
  EXPECT_EQ(problems.size(), 1u);
  const Inspection run_folder = inspect(folder_);
  EXPECT_EQ(run_folder.problems.size(), 1u);
  EXPECT_EQ(run_folder.facts["checkpoints"][0]["sound"], true);
  EXPECT_EQ(run_folder.facts["checkpoints"][1]["sound"], false);
  EXPECT_EQ(inspect(newer).problems.size(), 1u);
}

TEST_F(LoadModel, ErrorsNameTheCause) {
  Context ctx = context();
  const auto model = make_model(ctx);
  EXPECT_NE(failure_at(folder_ / "absent").find("does not exist"), std::string::npos);
  EXPECT_NE(failure_at(folder_).find("no checkpoint at"), std::string::npos);
  std::string other = kConfig;
  other.replace(other.find("n_layers = 2"), 12, "n_layers = 3");
  EXPECT_NE(failure_at(save(*model, 1, other)), testing::kNoFailure);
  const Parameter& last = *model->parameters().parameters.back();
  model->parameters().values.data<float>()[last.offset + 1] = NAN;
  EXPECT_NE(failure_at(save(*model, 2)).find("element 1 of " + last.name + " is nan"),
            std::string::npos);
}

}  // namespace
}  // namespace rodimus
