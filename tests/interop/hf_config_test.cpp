// config.json in both forms, and what is refused.
#include "interop/hf_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/support/failure_of.h"

namespace rodimus {
namespace {

using nlohmann::json;
using rodimus::testing::failure_of;

// The values of the released Rodimus-Plus-Coder-4B.
json authors() {
  return {{"model_type", "rodimus"},
          {"block_type", "rodimus_plus"},
          {"d_model", 3072},
          {"n_layer", 32},
          {"vocab_size", 126464},
          {"norm_epsilon", 1e-5},
          {"tie_word_embeddings", false},
          {"max_position_embeddings", 4096},
          {"use_norm_embedding", false},
          {"use_scale_embedding", false},
          {"mixer_cfg",
           {{"expand_ratio", 2.0},
            {"input_gate_low_rank", "auto"},
            {"mem_size", 64},
            {"mode", "fused_chunk"},
            {"normalize_epsilon", 1e-5}}},
          {"attn_cfg",
           {{"ffn_expand_ratio", 4.0 / 3},
            {"num_heads", 24},
            {"num_heads_k", 1},
            {"num_heads_v", 24},
            {"rotary_emb_dim", -1},
            {"rotary_emb_scale_base", nullptr},
            {"window_size", 4096}}}};
}

json fla() {
  return {{"model_type", "rodimus"},
          {"block_type", "rodimus_plus"},
          {"hidden_size", 3072},
          {"num_hidden_layers", 32},
          {"vocab_size", 126464},
          {"norm_eps", 1e-5},
          {"k_norm_eps", 1e-5},
          {"tie_word_embeddings", false},
          {"max_position_embeddings", 4096},
          {"expand_ratio", 64},
          {"conv_size", 4},
          {"input_gate_low_rank", "auto"},
          {"hidden_ratio", 4.0 / 3},
          {"intermediate_size", nullptr},
          {"hidden_act", "swish"},
          {"use_short_conv", true},
          {"attn", nullptr},
          {"ska_attn",
           {{"num_heads", 24},
            {"qkv_bias", false},
            {"qk_norm", false},
            {"rope_theta", 10000.0},
            {"window_size", 2049}}}};
}

HfConfig parse(const json& config) { return parse_hf_config(config.dump(), "config.json"); }

// Why `config` is refused after `change`, a JSON pointer and its new value.
std::string refusal(json config, const char* where, const json& value) {
  config[json::json_pointer(where)] = value;
  const std::string why = failure_of([&] { parse(config); });
  EXPECT_EQ(why.find('\n'), std::string::npos) << why;
  return why;
}

void expect_refused(const json& config, const char* where, const json& value) {
  const std::string why = refusal(config, where, value);
  std::string key = where + 1;
  std::replace(key.begin(), key.end(), '/', '.');
  EXPECT_NE(why.find("config.json: " + key + " = " + value.dump() + ": "), std::string::npos)
      << where << ": " << why;
}

TEST(HfConfig, BothFormsOfAModelAreTheSameModel) {
  for (const json& config : {authors(), fla()}) {
    const HfConfig parsed = parse(config);
    const ModelConfig& model = parsed.model;
    EXPECT_EQ(parsed.form, config.contains("d_model") ? HfForm::authors : HfForm::fla);
    EXPECT_EQ(parsed.max_positions, 4096);
    EXPECT_EQ(model.block, "rodimus_plus");
    EXPECT_EQ(model.d_model, 3072);
    EXPECT_EQ(model.n_layers, 32);
    EXPECT_EQ(model.vocab_size, 126464);
    EXPECT_EQ(model.mem_size, 64);
    EXPECT_EQ(model.conv_width, 4);
    EXPECT_EQ(model.d_inner(), 6144);
    EXPECT_EQ(model.value_gate_rank(), 48);
    EXPECT_EQ(model.d_ff(), 4096);
    EXPECT_EQ(model.n_heads, 24);
    EXPECT_EQ(model.n_heads_k, 1);
    EXPECT_EQ(model.heads_v(), 24);
    EXPECT_EQ(model.window, 2049);
    EXPECT_EQ(model.rope_base, 10000);
    EXPECT_EQ(model.norm_eps, 1e-5);
    EXPECT_EQ(model.key_norm_eps, 1e-5);
    EXPECT_FALSE(model.tied);
    EXPECT_NO_THROW(model.validate());
  }
}

TEST(HfConfig, AbsentKeysHaveTheDefaultsOfTheOtherProgram) {
  const HfConfig first = parse({{"d_model", 64}, {"n_layer", 2}, {"vocab_size", 100}});
  EXPECT_EQ(first.model.block, "rodimus");
  EXPECT_EQ(first.model.key_norm_eps, 1e-12);
  EXPECT_EQ(first.model.mem_size, 64);
  EXPECT_TRUE(first.model.tied);
  EXPECT_EQ(first.max_positions, 0);

  json config = authors();
  config["attn_cfg"] = {{"num_heads", 24}};
  EXPECT_EQ(parse(config).model.window, kFullWindow);
  EXPECT_EQ(parse(config).model.heads_v(), 24);
  config = fla();
  config["k_norm_eps"] = nullptr;
  config["ska_attn"]["window_size"] = nullptr;
  EXPECT_EQ(parse(config).model.key_norm_eps, 1e-12);
  EXPECT_EQ(parse(config).model.window, kFullWindow);
}

TEST(HfConfig, SizesThatTheFormsWriteDifferently) {
  json config = authors();
  for (const auto& [written, keys] :
       std::vector<std::pair<int, int64_t>>{{30, 16}, {31, 16}, {2, 2}, {1, 1}, {0, 0}, {-1, 0}}) {
    config["attn_cfg"]["window_size"] = written;
    EXPECT_EQ(parse(config).model.window, keys) << written;
  }
  config["mixer_cfg"]["input_gate_low_rank"] = "20";
  EXPECT_EQ(parse(config).model.value_gate_rank(), 20);
  config["mixer_cfg"]["input_gate_low_rank"] = 24;
  EXPECT_EQ(parse(config).model.value_gate_rank(), 24);

  config = fla();
  // Every multiple of 8 is met exactly, although only a ratio is stored.
  for (int64_t size = 8; size <= 8192; size += 8) {
    config["hidden_size"] = 3 * 16 + size / 64;
    config["intermediate_size"] = size;
    ASSERT_EQ(parse(config).model.d_ff(), size);
  }
}

TEST(HfConfig, WhatIsComputedOtherwiseIsRefusedByName) {
  expect_refused(authors(), "/use_norm_embedding", true);
  expect_refused(authors(), "/use_scale_embedding", true);
  expect_refused(authors(), "/residual_in_fp32", false);
  expect_refused(authors(), "/attn_cfg/softmax_scale", "norm");
  expect_refused(authors(), "/attn_cfg/rotary_emb_interleaved", true);
  expect_refused(authors(), "/attn_cfg/rotary_emb_dim", 64);
  expect_refused(authors(), "/attn_cfg/rotary_emb_dim", 0);
  expect_refused(authors(), "/attn_cfg/rotary_emb_scale_base", 512);
  expect_refused(authors(), "/attn_cfg/causal", false);
  expect_refused(authors(), "/attn_cfg/alibi", true);
  expect_refused(authors(), "/mixer_cfg/causal", false);
  expect_refused(authors(), "/mixer_cfg/heads", 2);
  expect_refused(fla(), "/ska_attn/qkv_bias", true);
  expect_refused(fla(), "/ska_attn/qk_norm", true);
  expect_refused(fla(), "/ska_attn/sinks", 4);
  expect_refused(fla(), "/use_short_conv", false);
  expect_refused(fla(), "/residual_in_fp32", false);
  expect_refused(fla(), "/hidden_act", "gelu");
  expect_refused(fla(), "/intermediate_size", 100);
  EXPECT_NE(refusal(fla(), "/attn", {{"layers", {0}}}).find("config.json: attn = "),
            std::string::npos);
  // 128 is the size of a head: all of it is rotated.
  EXPECT_EQ(refusal(authors(), "/attn_cfg/rotary_emb_dim", 128), "nothing was thrown");
}

TEST(HfConfig, BadValuesAreNamed) {
  expect_refused(authors(), "/model_type", "llama");
  expect_refused(authors(), "/block_type", "mamba");
  expect_refused(authors(), "/d_model", "3072");
  expect_refused(authors(), "/d_model", 3072.5);
  expect_refused(authors(), "/n_layer", 18446744073709551615u);
  expect_refused(authors(), "/vocab_size", 4294967296);
  expect_refused(authors(), "/norm_epsilon", "1e-5");
  expect_refused(authors(), "/tie_word_embeddings", 1);
  expect_refused(authors(), "/mixer_cfg", 7);
  expect_refused(authors(), "/mixer_cfg/input_gate_low_rank", "most");
  expect_refused(authors(), "/mixer_cfg/input_gate_low_rank", "-3");
  expect_refused(authors(), "/mixer_cfg/input_gate_low_rank", 0);
  expect_refused(authors(), "/attn_cfg/num_heads", 0);
  expect_refused(fla(), "/ska_attn/window_size", 0);
  expect_refused(fla(), "/hidden_size", 0);
  json config = authors();
  config["attn_cfg"].erase("num_heads");
  EXPECT_NE(failure_of([&] { parse(config); }).find("config.json: attn_cfg.num_heads is missing"),
            std::string::npos);
}

TEST(HfConfig, TheFormMustBeClear) {
  json config = authors();
  config["hidden_size"] = 3072;
  EXPECT_NE(failure_of([&] { parse(config); }).find("both d_model"), std::string::npos);
  EXPECT_NE(failure_of([&] { parse(json::object()); }).find("neither d_model"), std::string::npos);
  for (const char* text : {"", "[]", "{", "null", "\xff"})
    EXPECT_NE(failure_of([&] { parse_hf_config(text, "config.json"); }).find("not a JSON object"),
              std::string::npos);
}

}  // namespace
}  // namespace rodimus
