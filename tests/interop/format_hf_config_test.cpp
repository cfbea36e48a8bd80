// config.json as export writes it: import reads the same model from it, and transformers finds what
// it needs.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "interop/hf_config.h"
#include "interop/model_code.h"
#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

using nlohmann::json;
using testing::expect_error;

ModelConfig plus() {
  ModelConfig config;
  config.vocab_size = 97;
  config.d_model = 64;
  config.n_layers = 3;
  config.n_heads = 4;
  return config;
}

json written(const ModelConfig& model, HfForm form, const HfTokens& tokens = {},
             WeightType type = WeightType::f32) {
  return json::parse(format_hf_config({form, model, 512}, tokens, type));
}

void expect_round_trip(const ModelConfig& want, HfForm form) {
  const std::string text = format_hf_config({form, want, 512}, {}, WeightType::f32);
  const HfConfig config = parse_hf_config(text, "config.json");
  const ModelConfig& got = config.model;
  EXPECT_EQ(config.form, form);
  EXPECT_EQ(config.max_positions, 512);
  EXPECT_EQ(got.block, want.block);
  EXPECT_EQ(got.vocab_size, want.vocab_size);
  EXPECT_EQ(got.d_model, want.d_model);
  EXPECT_EQ(got.n_layers, want.n_layers);
  EXPECT_EQ(got.mem_size, want.mem_size);
  EXPECT_EQ(got.conv_width, want.conv_width);
  EXPECT_EQ(got.expand, want.expand);
  EXPECT_EQ(got.gate_rank, want.gate_rank);
  EXPECT_EQ(got.norm_eps, want.norm_eps);
  EXPECT_EQ(got.key_norm_eps, want.key_norm_eps);
  EXPECT_EQ(got.tied, want.tied);
  if (want.block == "rodimus") return;  // reads no other key
  EXPECT_EQ(got.n_heads, want.n_heads);
  EXPECT_EQ(got.n_heads_k, want.n_heads_k);
  EXPECT_EQ(got.heads_v(), want.heads_v());
  EXPECT_EQ(got.window, want.window);
  EXPECT_EQ(got.ffn_ratio, want.ffn_ratio);
  EXPECT_EQ(got.rope_base, want.rope_base);
}

TEST(FormatHfConfig, ImportReadsTheSameModel) {
  std::vector<ModelConfig> models(1, plus());
  const auto with = [&](auto change) { change(models.emplace_back(plus())); };
  with([](ModelConfig& m) { m.block = "rodimus"; });
  with([](ModelConfig& m) {
    m.block = "rodimus";  // which has no window
    m.window = 1;
  });
  with([](ModelConfig& m) { m.tied = true; });
  with([](ModelConfig& m) { m.window = 2; });
  with([](ModelConfig& m) { m.window = 2049; });
  with([](ModelConfig& m) { m.mem_size = 24; });
  with([](ModelConfig& m) { m.conv_width = 7; });
  with([](ModelConfig& m) { m.gate_rank = 20; });
  with([](ModelConfig& m) { m.ffn_ratio = 0.1 + 0.2; });  // 17 digits
  with([](ModelConfig& m) { m.rope_base = 123456.75; });
  with([](ModelConfig& m) {
    m.norm_eps = 1.0 / 3e5;
    m.key_norm_eps = 1e-300;
  });
  for (const ModelConfig& model : models)
    for (const HfForm form : {HfForm::authors, HfForm::fla}) expect_round_trip(model, form);
  // What only the authors' form has.
  models.clear();
  with([](ModelConfig& m) { m.expand = 1.7; });
  with([](ModelConfig& m) { m.n_heads_k = 2; });
  with([](ModelConfig& m) { m.n_heads_v = 1; });
  for (const ModelConfig& model : models) expect_round_trip(model, HfForm::authors);
  models.clear();
  with([](ModelConfig& m) { m.window = 1; });
  expect_round_trip(models.front(), HfForm::fla);
}

TEST(FormatHfConfig, WhatAFormCannotExpressIsNamed) {
  const auto refused = [](auto change, HfForm form, const std::vector<std::string>& parts) {
    ModelConfig model = plus();
    change(model);
    expect_error([&] { written(model, form); }, parts);
  };
  refused([](ModelConfig& m) { m.window = 1; }, HfForm::authors, {"model.window = 1", "--to fla"});
  refused([](ModelConfig& m) { m.block = "new"; }, HfForm::authors,
          {"model.block = \"new\"", "cannot be exported"});
  refused([](ModelConfig& m) { m.n_heads_k = 2; }, HfForm::fla,
          {"model.n_heads_k = 2", "--to authors"});
  refused([](ModelConfig& m) { m.n_heads_v = 2; }, HfForm::fla,
          {"model.n_heads_v = 2", "--to authors"});
  refused([](ModelConfig& m) { m.expand = 3; }, HfForm::fla,
          {"model.expand = 3", "192", "128", "--to authors"});
  refused(
      [](ModelConfig& m) {
        m.window = 1;
        m.n_heads_k = 2;
      },
      HfForm::authors, {"model.window = 1", "cannot express it either: model.n_heads_k = 2"});
}

TEST(FormatHfConfig, WhatTransformersNeeds) {
  for (const HfForm form : {HfForm::authors, HfForm::fla}) {
    json config = written(plus(), form, {3, 5}, WeightType::bf16);
    EXPECT_EQ(config["model_type"], "rodimus");
    EXPECT_EQ(config["architectures"], json::array({"RodimusForCausalLM"}));
    EXPECT_EQ(config["torch_dtype"], "bfloat16");
    EXPECT_EQ(config["bos_token_id"], 3);
    EXPECT_EQ(config["eos_token_id"], 5);
    EXPECT_EQ(config["residual_in_fp32"], true);
    EXPECT_EQ(config.contains("auto_map"), form == HfForm::authors);
    // fla would train no embedding of that token.
    EXPECT_FALSE(config.contains("pad_token_id"));
    config = written(plus(), form, {}, WeightType::f16);
    EXPECT_EQ(config["torch_dtype"], "float16");
    EXPECT_TRUE(config.at("bos_token_id").is_null());
    EXPECT_TRUE(config.at("eos_token_id").is_null());
  }
  EXPECT_EQ(written(plus(), HfForm::fla)["block_residual_in_fp32"], true);
  EXPECT_EQ(json::parse(format_generation_config({3, 5})),
            json({{"bos_token_id", 3}, {"eos_token_id", 5}, {"pad_token_id", 5}}));
  EXPECT_EQ(json::parse(format_generation_config({})), json::object());
}

TEST(ModelCodeFiles, AreThoseOfTheSourceTree) {
  const std::filesystem::path folder = std::filesystem::path(RODIMUS_SOURCE_DIR) / "interop/hf";
  size_t found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    found += entry.path().extension() == ".py" ? 1 : 0;
  EXPECT_EQ(model_code().size(), found);
  EXPECT_EQ(found, 3u);
  for (const ModelCode& file : model_code())
    EXPECT_EQ(file.text, testing::read_bytes(folder / file.name)) << file.name;
}

}  // namespace
}  // namespace rodimus
