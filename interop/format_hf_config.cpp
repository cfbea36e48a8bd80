#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "interop/hf_config.h"

namespace rodimus {
namespace {

using Json = nlohmann::ordered_json;

// What of `model` the form cannot express and why; "" if it can express all.
std::string obstacle(const ModelConfig& model, HfForm form) {
  const bool plus = model.block == "rodimus_plus";
  if (form == HfForm::authors) {
    if (plus && model.window == 1)
      return "model.window = 1 would be window_size 0, which means no window in the authors' form";
    return "";
  }
  ModelConfig twice = model;
  twice.expand = 2;
  if (model.d_inner() != twice.d_inner()) {
    return concat("model.expand = ", model.expand, " gives the mixer ", model.d_inner(),
                  " channels, fla's form has those of model.expand = 2, ", twice.d_inner());
  }
  if (plus && model.n_heads_k != 1)
    return concat("model.n_heads_k = ", model.n_heads_k, ": fla's form has one key head");
  if (plus && model.heads_v() != model.n_heads) {
    return concat("model.n_heads_v = ", model.n_heads_v,
                  ": fla's form has as many value heads as query heads, ", model.n_heads);
  }
  return "";
}

void require_expressible(const ModelConfig& model, HfForm form) {
  if (model.block != "rodimus" && model.block != "rodimus_plus") {
    fail("model.block = \"", model.block,
         "\": other programs know \"rodimus\" and \"rodimus_plus\" only, so it cannot be exported");
  }
  const std::string problem = obstacle(model, form);
  if (problem.empty()) return;
  const HfForm other = form == HfForm::authors ? HfForm::fla : HfForm::authors;
  const std::string second = obstacle(model, other);
  fail(problem, second.empty() ? concat("; use --to ", option_of(other))
                               : concat(", and --to ", option_of(other),
                                        " cannot express it either: ", second));
}

Json window_or_null(int64_t window, int64_t written) {
  return window == kFullWindow ? Json() : Json(written);
}

Json rank_or_auto(int64_t rank) { return rank == 0 ? Json("auto") : Json(rank); }

Json authors_form(const HfConfig& config) {
  const ModelConfig& model = config.model;
  Json attention = Json::object();
  if (model.block == "rodimus_plus") {
    attention = {{"num_heads", model.n_heads},
                 {"num_heads_k", model.n_heads_k},
                 {"num_heads_v", model.heads_v()},
                 {"window_size", window_or_null(model.window, 2 * (model.window - 1))},
                 {"ffn_expand_ratio", model.ffn_ratio},
                 {"rotary_emb_base", model.rope_base},
                 {"rotary_emb_dim", -1},
                 {"rotary_emb_scale_base", nullptr}};
  }
  return {{"auto_map",
           {{"AutoConfig", "configuration_rodimus.RodimusConfig"},
            {"AutoModel", "modeling_rodimus.RodimusModel"},
            {"AutoModelForCausalLM", "modeling_rodimus.RodimusForCausalLM"}}},
          {"block_type", model.block},
          {"d_model", model.d_model},
          {"n_layer", model.n_layers},
          {"vocab_size", model.vocab_size},
          {"norm_epsilon", model.norm_eps},
          {"residual_in_fp32", true},
          {"use_norm_embedding", false},
          {"use_scale_embedding", false},
          {"mixer_cfg",
           {{"mem_size", model.mem_size},
            {"d_conv", model.conv_width},
            {"expand_ratio", model.expand},
            {"input_gate_low_rank", rank_or_auto(model.gate_rank)},
            {"mode", "fused_chunk"},
            {"normalize_epsilon", model.key_norm_eps}}},
          {"attn_cfg", attention}};
}

Json fla_form(const HfConfig& config) {
  const ModelConfig& model = config.model;
  Json attention;
  if (model.block == "rodimus_plus") {
    attention = {{"num_heads", model.n_heads},
                 {"qkv_bias", false},
                 {"qk_norm", false},
                 {"window_size", window_or_null(model.window, model.window)},
                 {"rope_theta", model.rope_base}};
  }
  return {{"block_type", model.block},
          {"hidden_size", model.d_model},
          {"num_hidden_layers", model.n_layers},
          {"vocab_size", model.vocab_size},
          {"norm_eps", model.norm_eps},
          {"k_norm_eps", model.key_norm_eps},
          // The block reads one, the model the other; fla's own default sets them apart.
          {"residual_in_fp32", true},
          {"block_residual_in_fp32", true},
          {"expand_ratio", model.mem_size},
          {"input_gate_low_rank", rank_or_auto(model.gate_rank)},
          {"use_short_conv", true},
          {"conv_size", model.conv_width},
          {"hidden_ratio", model.ffn_ratio},
          {"intermediate_size", nullptr},
          {"hidden_act", "swish"},
          {"attn", nullptr},
          {"ska_attn", attention}};
}

Json id_or_null(int64_t id) { return id < 0 ? Json() : Json(id); }

}  // namespace

std::string format_hf_config(const HfConfig& config, const HfTokens& tokens, WeightType type) {
  require_expressible(config.model, config.form);
  Json json{{"architectures", {"RodimusForCausalLM"}}, {"model_type", "rodimus"}};
  json.update(config.form == HfForm::authors ? authors_form(config) : fla_form(config));
  json["tie_word_embeddings"] = config.model.tied;
  if (config.max_positions > 0) json["max_position_embeddings"] = config.max_positions;
  // Written even if unknown: fla's defaults are ids of another vocabulary.
  json["bos_token_id"] = id_or_null(tokens.begin);
  json["eos_token_id"] = id_or_null(tokens.end);
  json["torch_dtype"] = names_of(type).torch;
  json["use_cache"] = true;
  return to_text(json, 2) + "\n";
}

std::string format_generation_config(const HfTokens& tokens) {
  Json json = Json::object();
  if (tokens.begin >= 0) json["bos_token_id"] = tokens.begin;
  if (tokens.end >= 0) json["eos_token_id"] = json["pad_token_id"] = tokens.end;
  return to_text(json, 2) + "\n";
}

}  // namespace rodimus
