#include "train/config/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>

#include "base/error.h"
#include "base/words.h"
#include "tests/support/failure_of.h"
#include "train/config/config_schema.h"
#include "train/config/resolve.h"

namespace rodimus {
namespace {

using testing::failure_of;
using testing::kNoFailure;

const std::string kModel = "[model]\nd_model = 64\nn_layers = 2\nn_heads = 2\n";

Config parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_config(kModel + text, "c.toml", overrides);
}

TEST(Config, DefaultsAreThoseOfTheStructs) {
  const Config config = parse(""), defaults;
  EXPECT_EQ(config.model.d_model, 64);
  EXPECT_EQ(config.model.window, kFullWindow);
  EXPECT_EQ(config.model.block, "rodimus_plus");
  EXPECT_EQ(config.optimizer.lr, defaults.optimizer.lr);
  EXPECT_EQ(config.run.steps, defaults.run.steps);
  EXPECT_EQ(config.model.vocab_size, 0);
}

TEST(Config, ReadsEveryType) {
  const Config config = parse(R"(window = 32
block = "rodimus_plus"
tied = true
[data]
train = ["a.bin", "b"]
val = "one"
[optimizer]
lr = 1
schedule = "wsd"
decay_steps = 5
min_lr = 1e-6
[run]
seed = 9223372036854775807
threads = 3
)");
  EXPECT_EQ(config.model.window, 32);
  EXPECT_TRUE(config.model.tied);
  EXPECT_EQ(config.data.train, (std::vector<std::string>{"a.bin", "b"}));
  EXPECT_EQ(config.data.val, std::vector<std::string>{"one"});
  EXPECT_EQ(config.optimizer.lr, 1.0);  // an integer where a number is expected
  EXPECT_EQ(config.optimizer.min_lr, 1e-6);
  EXPECT_EQ(config.optimizer.schedule, "wsd");
  EXPECT_EQ(config.run.seed, 9223372036854775807u);
  EXPECT_EQ(config.run.threads, 3);
}

TEST(Config, OverridesApplyInOrderAndAfterTheFile) {
  const Config config = parse(
      "[run]\nsteps = 3\n",
      {"run.steps=4", "run.steps = 5", "model.window=full", "data.train=[\"x\", \"y\"]",
       "data.val=some/folder", "run.output=2024-01-31", "optimizer.lr=1e-3", "data.shuffle=false"});
  EXPECT_EQ(config.run.steps, 5);
  EXPECT_EQ(config.model.window, kFullWindow);
  EXPECT_EQ(config.data.train, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(config.data.val, std::vector<std::string>{"some/folder"});
  EXPECT_EQ(config.run.output, "2024-01-31");
  EXPECT_EQ(config.optimizer.lr, 1e-3);
  EXPECT_FALSE(config.data.shuffle);
  EXPECT_EQ(parse("", {"run.output=\"quoted\""}).run.output, "quoted");
  EXPECT_EQ(parse("", {"run.output=a=b"}).run.output, "a=b");
}

struct Bad {
  const char* text;      // appended to four lines of [model]
  const char* override;  // null: none
  std::vector<std::string> says;
};

TEST(Config, BadInputIsOneLineThatNamesWhatIsWrong) {
  const std::vector<Bad> matrix = {
      // Unknown names.
      {"n_layer = 2", nullptr, {"c.toml:5", "unknown key model.n_layer", "model.n_layers"}},
      {"steps = 2", nullptr, {"c.toml:5", "unknown key model.steps", "run.steps"}},
      {"[optimiser]\nlr = 1", nullptr, {"c.toml:5", "[optimiser]", "[optimizer]"}},
      {"[zzz]\nlr = 1", nullptr, {"c.toml:5", "model, data, optimizer, run or checkpoint"}},
      {"[run]\nqqqqqqqqq = 1", nullptr, {"c.toml:6", "[run] has output, steps"}},
      {"[model.sub]\nx = 1", nullptr, {"c.toml:5", "unknown key model.sub"}},
      {"", "run.stepz=5", {"--set run.stepz=5", "did you mean run.steps?"}},
      {"", "rum.steps=5", {"--set rum.steps=5", "did you mean [run]?"}},
      {"", "steps=5", {"--set steps=5", "expected section.key=value"}},
      {"", "run.steps", {"--set run.steps", "expected section.key=value"}},
      // Wrong types.
      {"[run]\nsteps = 1.5", nullptr, {"c.toml:6", "run.steps", "number 1.5", "an integer"}},
      {"[run]\nsteps = 1e3", nullptr, {"run.steps is the floating-point number 1000.0"}},
      {"[run]\nsteps = \"5\"", nullptr, {"run.steps is the string \"5\"", "an integer"}},
      {"[run]\nrecompute = 1", nullptr, {"run.recompute is the integer 1", "true or false"}},
      {"[run]\noutput = 5", nullptr, {"run.output is the integer 5", "a string"}},
      {"[run]\noutput = 2024-01-31", nullptr, {"run.output is a date or time"}},
      {"[run]\nsteps = [1]", nullptr, {"run.steps is a list"}},
      {"[run.steps]\nx = 1", nullptr, {"run.steps is a table"}},
      {"[data]\ntrain = [1]", nullptr, {"data.train[0] is the integer 1", "a list of strings"}},
      {"[data]\ntrain = true", nullptr, {"data.train is the boolean true"}},
      {"[optimizer]\nlr = \"x\"", nullptr, {"optimizer.lr is the string", "a number above 0"}},
      {"", "run.steps=12x", {"--set run.steps=12x", "the string \"12x\"", "an integer"}},
      {"", "optimizer.lr=", {"optimizer.lr is the string \"\""}},
      {"", "run.steps=1\n[run]", {"run.steps is the string", "an integer"}},
      // Impossible values.
      {"[run]\nsteps = 0", nullptr, {"c.toml:6", "run.steps = 0", "in [1, 2147483647]"}},
      {"[run]\nsteps = -3", nullptr, {"run.steps = -3", "in [1, "}},
      {"[run]\nseed = -1", nullptr, {"run.seed = -1", "in [0, 2^63 - 1]"}},
      {"[run]\nthreads = 99999999999", nullptr, {"run.threads = 99999999999", "[0, 4096]"}},
      {"[run]\nglobal_batch = 0", nullptr, {"run.global_batch = 0"}},
      {"[run]\nmicro_batch = -1", nullptr, {"run.micro_batch = -1"}},
      {"[run]\nlog_every = 0", nullptr, {"run.log_every = 0"}},
      {"[run]\noutput = \"\"", nullptr, {"run.output is empty"}},
      {"[run]\ncompute = \"fp32\"",
       nullptr,
       {"\"fp32\"", "\"auto\", \"f32\" or \"bf16\"", "\"f32\"?"}},
      {"[run]\ndevice = \"gpu\"", nullptr, {"\"gpu\"", "\"auto\", \"cpu\" or \"cuda\""}},
      {"[data]\nseq_len = 0", nullptr, {"data.seq_len = 0"}},
      {"[optimizer]\nlr = 0.0", nullptr, {"optimizer.lr = 0.0", "above 0"}},
      {"[optimizer]\nlr = nan", nullptr, {"optimizer.lr = nan"}},
      {"[optimizer]\nlr = inf", nullptr, {"optimizer.lr = inf"}},
      {"[optimizer]\nmin_lr = -1e-9", nullptr, {"optimizer.min_lr = -1e-09", "at least 0"}},
      {"[optimizer]\nmin_lr = 1.0",
       nullptr,
       {"c.toml: ", "optimizer.min_lr = 1.0 is above optimizer.lr"}},
      {"[optimizer]\nbeta1 = 1.0", nullptr, {"optimizer.beta1 = 1.0", "in [0, 1)"}},
      {"[optimizer]\nbeta2 = -0.1", nullptr, {"optimizer.beta2 = -0.1", "in [0, 1)"}},
      {"[optimizer]\neps = 0", nullptr, {"optimizer.eps = 0", "above 0"}},
      {"[optimizer]\nclip = -1", nullptr, {"optimizer.clip = -1"}},
      {"[optimizer]\nschedule = \"cosin\"", nullptr, {"\"cosin\"", "did you mean \"cosine\"?"}},
      {"[optimizer]\nschedule = \"wsd\"\nwarmup_steps = 600\ndecay_steps = 500",
       nullptr,
       {"600 + 500 is more than run.steps = 1000"}},
      {"[optimizer]\nschedule = \"wsd\"\n[run]\nsteps = 50",
       nullptr,
       {"100 + 5 (a tenth of the steps) is more than run.steps = 50"}},
      // Sizes whose products would overflow.
      {"", "run.global_batch=4611686018427387904", {"run.global_batch = 4611686018427387904", "["}},
      {"", "run.micro_batch=2147483648", {"run.micro_batch = 2147483648", "2147483647]"}},
      {"", "run.steps=9223372036854775807", {"run.steps = 9223372036854775807"}},
      {"", "data.seq_len=9223372036854775807", {"data.seq_len = 9223372036854775807"}},
      {"", "model.d_model=4611686018427387904", {"model.d_model = 4611686018427387904"}},
      {"", "model.d_model=2147483644", {"model: about", "d_model = 2147483644", "at most 1e+15"}},
      {"", "model.n_layers=100001", {"model.n_layers = 100001", "[1, 100000]"}},
      {"", "model.mem_size=2147483648", {"model.mem_size = 2147483648"}},
      {"", "model.n_heads=2147483648", {"model.n_heads = 2147483648"}},
      {"window = 9223372036854775807", nullptr, {"model.window = 9223372036854775807", "[1, "}},
      {"conv_width = 33", nullptr, {"model.conv_width = 33", "[1, 32]"}},
      {"[run]\nsteps = 2000000000\nglobal_batch = 2000000000",
       nullptr,
       {"2000000000 * 2000000000 * 1024 tokens", "at most 1e+18"}},
      {"[checkpoint]\nkeep_last = -1", nullptr, {"checkpoint.keep_last = -1"}},
      {"window = 0", nullptr, {"c.toml:5", "model.window = 0", "in [1, ", "\"full\""}},
      {"window = -1", nullptr, {"model.window = -1", "\"full\""}},
      {"window = \"ful\"", nullptr, {"\"ful\"", "did you mean \"full\"?"}},
      {"window = 1.0", nullptr, {"model.window is the floating-point number 1.0", "\"full\""}},
      {"block = \"rodimus+\"", nullptr, {"\"rodimus+\"", "\"rodimus\" or \"rodimus_plus\""}},
      {"gate_rank = -1", nullptr, {"model.gate_rank = -1"}},
      {"expand = 0", nullptr, {"model.expand = 0", "(0, 64]"}},
      {"", "model.n_heads=3", {"c.toml: ", "model.n_heads = 3", "divisible"}},
      {"", "model.n_heads=0", {"model.n_heads is missing", "block = \"rodimus\""}},
      {"", "model.d_model=0", {"--set model.d_model=0", "in [1, "}},
      {"vocab_size = -1", nullptr, {"model.vocab_size = -1"}},
      // Syntax.
      {"[run]\nsteps = 1\nsteps = 2", nullptr, {"c.toml:7"}},
      {"[run\nsteps = 1", nullptr, {"c.toml:5"}},
      {"tied = \"abc", nullptr, {"c.toml:5"}},
      {"[model]\ntied = true", nullptr, {"c.toml:5"}},
  };
  for (const Bad& bad : matrix) {
    std::vector<std::string> overrides;
    if (bad.override) overrides.push_back(bad.override);
    const std::string error = failure_of([&] { parse(bad.text, overrides); });
    EXPECT_FALSE(error.empty()) << "accepted: " << bad.text << " "
                                << (bad.override ? bad.override : "");
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    for (const std::string& part : bad.says)
      EXPECT_NE(error.find(part), std::string::npos) << "\"" << error << "\" lacks " << part;
  }
}

TEST(Config, WarmUpMayTakeTheWholeRun) {
  EXPECT_EQ(parse("", {"run.steps=50"}).optimizer.warmup_steps, 100);
  EXPECT_EQ(parse("[optimizer]\nschedule = \"wsd\"\nwarmup_steps = 900").run.steps, 1000);
}

TEST(ModelConfig, WhatTheKernelsCannotHoldIsNamed) {
  ModelConfig config = parse("").model;
  config.vocab_size = 1;
  config.conv_width = 33;
  EXPECT_EQ(failure_of([&] { config.validate(); }), "model.conv_width = 33: must be in [1, 32]");
  config.conv_width = 32;
  EXPECT_EQ(failure_of([&] { config.validate(); }), kNoFailure);
  config.d_model = INT64_C(1) << 62;
  EXPECT_EQ(failure_of([&] { config.validate(); }),
            "model.d_model = 4611686018427387904: must be in [1, 2147483647]");
}

TEST(Config, KeysOutsideSectionsAndMissingSizes) {
  const auto says = [](const std::string& text, const std::string& part) {
    const std::string error = failure_of([&] { parse_config(text, "c.toml", {}); });
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  says("lr = 1", "c.toml:1: lr is outside a section; put it below [optimizer]");
  says("foo = 1", "unknown key foo outside a section");
  says("model = 1", "model is the integer 1, expected a section [model]");
  says("", "model.d_model is missing");
  says("[model]\nd_model = 8", "model.n_layers is missing");
  says("[model]\nd_model = 8\nn_layers = 1", "model.n_heads is missing");
  EXPECT_EQ(parse_config("[model]\nd_model = 8\nn_layers = 1\nblock = \"rodimus\"", "c", {})
                .model.n_heads,
            0);
}

TEST(Config, LoadNamesTheFile) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "config_test";
  std::filesystem::create_directories(folder);
  EXPECT_NE(failure_of([&] { load_config(folder / "absent.toml", {}); }).find("absent.toml"),
            std::string::npos);
  EXPECT_NE(failure_of([&] { load_config(folder, {}); }).find("is a folder"), std::string::npos);
  std::ofstream(folder / "bad.toml") << kModel << "x = 1\n";
  EXPECT_NE(failure_of([&] { load_config(folder / "bad.toml", {}); }).find("bad.toml:5: "),
            std::string::npos);
  std::ofstream(folder / "good.toml") << kModel;
  EXPECT_EQ(load_config(folder / "good.toml", {"run.steps=7"}).run.steps, 7);
  std::filesystem::remove_all(folder);
}

// Values as text, because Config has no operator== and checkpoints hold text.
std::vector<std::string> values_of(Config config) {
  std::vector<std::string> values;
  for (const ConfigField& field : config_fields(config))
    values.push_back(field.key() + " = " + field.toml_value());
  return values;
}

TEST(Config, TomlRoundTripIsExact) {
  Config config = parse("");
  EXPECT_EQ(values_of(parse_config(to_toml(config), "again", {})), values_of(config));

  // Every field differs from its default, with values that are hard to print.
  config.model.vocab_size = 32000;
  config.model.window = 2049;
  config.model.expand = 1.0 / 3 * 7;
  config.model.key_norm_eps = 1e-5;
  config.model.rope_base = 500000;
  config.model.tied = true;
  config.data.train = {"with \"quotes\"", "back\\slash", "tab\there",
                       "line\nbreak",     "\x01\x7f",    "ü"};
  config.data.tokenizer = "a = [1] # no comment";
  config.optimizer.lr = 0.1 + 0.2;
  config.optimizer.min_lr = 5e-324;
  config.optimizer.weight_decay = 1e300;
  config.optimizer.beta2 = std::nextafter(1.0, 0.0);
  config.run.seed = INT64_MAX;
  config.run.threads = 17;
  config.run.global_batch = (INT64_C(1) << 31) - 1;
  config.checkpoint.keep_every = 12345;
  const Config again = parse_config(to_toml(config), "again", {});
  EXPECT_EQ(again.model.expand, config.model.expand);
  EXPECT_EQ(again.data.train, config.data.train);
  EXPECT_EQ(again.data.tokenizer, config.data.tokenizer);
  EXPECT_EQ(again.optimizer.lr, config.optimizer.lr);
  EXPECT_EQ(again.optimizer.min_lr, config.optimizer.min_lr);
  EXPECT_EQ(again.optimizer.weight_decay, config.optimizer.weight_decay);
  EXPECT_EQ(again.optimizer.beta2, config.optimizer.beta2);
  EXPECT_EQ(again.run.seed, config.run.seed);
  EXPECT_EQ(again.model.window, 2049);
  EXPECT_EQ(values_of(again), values_of(config));
}

TEST(Config, ReferenceParsesAndHoldsTheDefaults) {
  // The reference has no values for required sizes.
  const Config config = parse_config(config_reference(), "reference",
                                     {"model.d_model=8", "model.n_layers=1", "model.n_heads=1"});
  EXPECT_EQ(values_of(config),
            values_of(parse_config("", "empty",
                                   {"model.d_model=8", "model.n_layers=1", "model.n_heads=1"})));
}

TEST(Config, PresetsParse) {
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(RODIMUS_SOURCE_DIR) + "/configs")) {
    if (entry.path().extension() != ".toml") continue;
    EXPECT_EQ(failure_of([&] { load_config(entry.path(), {}); }), kNoFailure) << entry.path();
  }
}

TEST(Config, TheLeastRateFollowsThePeak) {
  EXPECT_EQ(parse("", {"optimizer.lr=1e-5"}).optimizer.min_lr, 1e-5 / 10);
  EXPECT_EQ(parse("[optimizer]\nlr = 2e-3", {}).optimizer.min_lr, 2e-3 / 10);
  EXPECT_EQ(parse("[optimizer]\nmin_lr = 0", {"optimizer.lr=1e-5"}).optimizer.min_lr, 0);
}

TEST(ResolveForRanks, SplitsTheBatch) {
  Config config = parse("", {"run.global_batch=24"});
  const Circumstances found{.ranks = 4, .vocab_size = 10};
  ResolvedConfig resolved = resolve(config, found);
  EXPECT_EQ(resolved.run.micro_batch, 6);
  EXPECT_EQ(resolved.micro_batches(), 1);
  config.run.micro_batch = 2;
  resolved = resolve(config, found);
  EXPECT_EQ(resolved.run.micro_batch, 2);
  EXPECT_EQ(resolved.micro_batches(), 3);
  EXPECT_EQ(resolved.tokens_per_step(), 24 * 1024);
}

TEST(ResolveForRanks, SaysWhatWouldWork) {
  Config config = parse("", {"run.global_batch=10"});
  EXPECT_EQ(failure_of([&] { resolve(config, {.ranks = 4}); }),
            "run.global_batch = 10 is not divisible by 4 ranks: use 8 or 12, or start 1, 2, 5 or "
            "10 ranks");
  EXPECT_NE(failure_of([&] { resolve(config, {.ranks = 16}); }).find("use 16, or start"),
            std::string::npos);
  config.run.micro_batch = 3;
  EXPECT_EQ(failure_of([&] { resolve(config, {.ranks = 1}); }),
            "run.micro_batch = 3 does not divide the 10 sequences of each rank (run.global_batch = "
            "10 over 1 rank): use 1, 2, 5 or 10");
}

TEST(Resolve, LeavesNothingOpen) {
  const Config config = parse("");
  const ResolvedConfig gpu = resolve(config, {.device = Device::cuda, .vocab_size = 300});
  EXPECT_EQ(gpu.model.vocab_size, 300);
  EXPECT_EQ(gpu.run.micro_batch, config.run.global_batch);
  EXPECT_EQ(gpu.device, Device::cuda);
  EXPECT_EQ(gpu.run.device, "cuda");
  EXPECT_EQ(gpu.compute, DType::bf16);
  EXPECT_EQ(gpu.run.compute, "bf16");
  const ResolvedConfig cpu = resolve(config, {.threads = 3, .vocab_size = 300});
  EXPECT_EQ(cpu.run.device, "cpu");
  EXPECT_EQ(cpu.run.compute, name_of(cpu.compute));
  EXPECT_EQ(cpu.threads, 3);
  EXPECT_EQ(cpu.run.threads, 0) << "a matter of each machine";
  // Resolving what a checkpoint stores gives the same configuration again.
  const Config stored = parse_config(to_toml(cpu), "stored", {});
  EXPECT_EQ(to_toml(resolve(stored, {})), to_toml(cpu));
}

TEST(Resolve, KeepsWhatIsWritten) {
  const Config config =
      parse("vocab_size = 500", {"run.compute=f32", "run.micro_batch=4", "run.device=cpu"});
  const ResolvedConfig resolved = resolve(config, {.device = Device::cuda, .vocab_size = 300});
  EXPECT_EQ(resolved.model.vocab_size, 500);
  EXPECT_EQ(resolved.compute, DType::f32);
  EXPECT_EQ(resolved.run.micro_batch, 4);
  EXPECT_EQ(resolved.run.device, "cuda") << "that the ranks compute on";
}

TEST(Resolve, NeedsAVocabulary) {
  EXPECT_EQ(
      failure_of([&] { resolve(parse(""), {}); }),
      "model.vocab_size is not set and neither data.tokenizer nor the shards give it: set it");
}

TEST(Nearest, CountsEdits) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("trian", "train"), 1u);
  EXPECT_EQ(edit_distance("Train", "train"), 0u);
  const std::vector<std::string> words = {"train", "eval", "generate"};
  EXPECT_EQ(nearest("trian", words), "train");
  EXPECT_EQ(nearest("evla", words), "eval");
  EXPECT_EQ(nearest("xyz", words), "");
  EXPECT_EQ(join_or(words), "train, eval or generate");
}

TEST(OneLine, DropsBreaksAtTheEnd) {
  EXPECT_EQ(one_line("a\r\nb\nc\n\r\n"), "a  b c");
  EXPECT_EQ(one_line("\n"), "");
}

TEST(ConfigReference, IsWhatTheDocumentationSays) {
  std::ifstream file(RODIMUS_SOURCE_DIR "/docs/config.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT_NE(text.find("```toml\n" + config_reference()), std::string::npos)
      << "docs/config.md is out of date: put the output of `rodimus train --keys` into it";
}

}  // namespace
}  // namespace rodimus
