#include "interop/hf_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/words.h"

namespace rodimus {
namespace {

using nlohmann::json;

// One object of the file. A value of null counts as absent: that is how transformers writes None.
class Keys {
 public:
  Keys(const json& object, std::string origin, std::string prefix)
      : object_(&object), origin_(std::move(origin)), prefix_(std::move(prefix)) {}

  bool has(const char* key) const { return find(key) != nullptr; }
  bool is_text(const char* key) const { return has(key) && find(key)->is_string(); }

  // The object `key`; an empty one if it is absent.
  Keys section(const char* key) const {
    static const json kEmpty = json::object();
    const json* value = find(key);
    if (value && !value->is_object()) refuse(key, "expected an object");
    return {value ? *value : kEmpty, origin_, prefix_ + key + "."};
  }

  int64_t integer(const char* key, std::optional<int64_t> otherwise = {}) const {
    const json* value = present(key, otherwise.has_value());
    if (!value) return *otherwise;
    const bool fits = value->is_number_integer() &&
                      !(value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX);
    if (!fits || std::abs(value->get<double>()) > static_cast<double>(kMaxSize))
      refuse(key, concat("expected an integer of at most ", kMaxSize));
    return value->get<int64_t>();
  }

  double number(const char* key, std::optional<double> otherwise = {}) const {
    const json* value = present(key, otherwise.has_value());
    if (!value) return *otherwise;
    if (!value->is_number()) refuse(key, "expected a number");
    return value->get<double>();
  }

  bool boolean(const char* key, bool otherwise) const {
    const json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_boolean()) refuse(key, "expected true or false");
    return value->get<bool>();
  }

  std::string text(const char* key, const char* otherwise) const {
    const json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_string()) refuse(key, "expected a text");
    return value->get<std::string>();
  }

  // For an option of the other program that has no counterpart here: only `value` is supported.
  void only(const char* key, bool value, const char* what) const {
    if (boolean(key, value) != value)
      refuse(key, concat("only ", value ? "true" : "false", " is supported: ", what));
  }
  void absent(const char* key, const char* what) const {
    if (has(key)) refuse(key, concat("only null is supported: ", what));
  }

  // A key that is not listed could change what the model computes.
  void no_others(std::initializer_list<const char*> known) const {
    for (const auto& [key, value] : object_->items()) {
      if (std::find(known.begin(), known.end(), key) == known.end() && !value.is_null())
        refuse(key.c_str(), "an unknown key, which may change what the model computes");
    }
  }

  [[noreturn]] void refuse(const char* key, const std::string& why) const {
    const auto value = object_->find(key);
    fail(origin_, ": ", shortened(prefix_ + key), " = ",
         value == object_->end() ? "(absent)" : shortened(to_text(*value)), ": ", why);
  }

 private:
  const json* find(const char* key) const {
    const auto found = object_->find(key);
    return found == object_->end() || found->is_null() ? nullptr : &*found;
  }
  const json* present(const char* key, bool optional) const {
    const json* value = find(key);
    if (!value && !optional) fail(origin_, ": ", prefix_, key, " is missing");
    return value;
  }

  const json* object_;
  std::string origin_, prefix_;
};

void read_block_type(const Keys& top, const char* otherwise, ModelConfig& model) {
  model.block = top.text("block_type", otherwise);
  if (model.block != "rodimus" && model.block != "rodimus_plus")
    top.refuse("block_type", "expected \"rodimus\" or \"rodimus_plus\"");
}

// "auto" is ModelConfig's 0. The authors' code also takes numbers written as text.
int64_t gate_rank(const Keys& keys) {
  constexpr const char* kKey = "input_gate_low_rank";
  int64_t rank = 0;
  if (!keys.has(kKey)) return 0;
  if (keys.is_text(kKey)) {
    const std::string text = keys.text(kKey, "");
    if (text == "auto") return 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rank);
    if (error != std::errc() || end != text.data() + text.size() || rank > kMaxSize) rank = 0;
  } else {
    rank = keys.integer(kKey);
  }
  if (rank < 1) keys.refuse(kKey, "expected \"auto\" or a positive integer");
  return rank;
}

// The authors' rotary embedding turns the first rotary_emb_dim channels; below 0: all.
void check_rotary(const Keys& attention, const ModelConfig& model) {
  const int64_t turned = attention.integer("rotary_emb_dim", -1);
  if (turned >= 0 && turned != model.head_dim()) {
    attention.refuse("rotary_emb_dim",
                     concat("only -1 or d_model / num_heads = ", model.head_dim(),
                            " is supported: rotary embedding of all channels of a head"));
  }
  attention.only("rotary_emb_interleaved", false, "channel i is rotated with channel i + half");
  attention.absent("rotary_emb_scale_base", "xPos is not computed");
}

void read_authors_attention(const Keys& attention, ModelConfig& model) {
  attention.no_others({"num_heads", "num_heads_k", "num_heads_v", "window_size", "softmax_scale",
                       "causal", "ffn_expand_ratio", "rotary_emb_dim", "rotary_emb_base",
                       "rotary_emb_scale_base", "rotary_emb_interleaved", "dropout",
                       "activation_dropout", "attention_dropout", "max_position_embeddings"});
  model.n_heads = attention.integer("num_heads");
  if (model.n_heads < 1) attention.refuse("num_heads", "expected a positive integer");
  model.n_heads_k = attention.integer("num_heads_k", 1);
  model.n_heads_v = attention.integer("num_heads_v", model.n_heads);
  // That many tokens on both sides of a query together; the future half is masked.
  const int64_t both_sides = attention.integer("window_size", 0);
  model.window = both_sides > 0 ? both_sides / 2 + 1 : kFullWindow;
  model.ffn_ratio = attention.number("ffn_expand_ratio", model.ffn_ratio);
  model.rope_base = attention.number("rotary_emb_base", model.rope_base);
  attention.absent("softmax_scale", "products are scaled by 1 / sqrt(head size)");
  attention.only("causal", true, "queries do not see later tokens");
  check_rotary(attention, model);
}

ModelConfig read_authors(const Keys& top) {
  ModelConfig model;
  read_block_type(top, "rodimus", model);
  model.vocab_size = top.integer("vocab_size");
  model.d_model = top.integer("d_model");
  model.n_layers = top.integer("n_layer");
  model.norm_eps = top.number("norm_epsilon", 1e-5);
  top.only("use_norm_embedding", false, "embeddings are not normalised");
  top.only("use_scale_embedding", false, "embeddings are not scaled");

  const Keys mixer = top.section("mixer_cfg");
  mixer.no_others({"mem_size", "d_conv", "expand_ratio", "input_gate_low_rank", "mode",
                   "normalize_epsilon", "causal", "dropout", "activation_dropout",
                   "use_fast_path"});
  model.mem_size = mixer.integer("mem_size", 64);
  model.conv_width = mixer.integer("d_conv", 4);
  model.expand = mixer.number("expand_ratio", 2);
  model.gate_rank = gate_rank(mixer);
  model.key_norm_eps = mixer.number("normalize_epsilon", 1e-12);
  mixer.only("causal", true, "the memory does not read later tokens");
  if (model.block == "rodimus_plus") read_authors_attention(top.section("attn_cfg"), model);
  return model;
}

// fla gives the size f, ModelConfig a ratio that is rounded to it.
double ffn_ratio(const Keys& top, int64_t d_model) {
  if (!top.has("intermediate_size")) return top.number("hidden_ratio", 4.0 / 3);
  const int64_t size = top.integer("intermediate_size");
  if (size < 1 || size % 8 != 0)
    top.refuse("intermediate_size", "only positive multiples of 8 are supported");
  return static_cast<double>(size) / static_cast<double>(d_model);
}

ModelConfig read_fla(const Keys& top) {
  ModelConfig model;
  read_block_type(top, "rodimus_plus", model);
  model.vocab_size = top.integer("vocab_size");
  model.d_model = top.integer("hidden_size");
  if (model.d_model < 1) top.refuse("hidden_size", "expected a positive integer");
  model.n_layers = top.integer("num_hidden_layers");
  model.norm_eps = top.number("norm_eps", 1e-5);
  model.key_norm_eps = top.number("k_norm_eps", 1e-12);
  // The same word is the channel factor in the authors' file; fla fixes that at 2.
  model.mem_size = top.integer("expand_ratio", 64);
  model.expand = 2;
  model.conv_width = top.integer("conv_size", 4);
  model.gate_rank = gate_rank(top);
  top.only("use_short_conv", true, "the mixer has a convolution");
  top.absent("attn", "blocks with softmax attention instead of the mixer");
  if (model.block == "rodimus") return model;

  model.ffn_ratio = ffn_ratio(top, model.d_model);
  const std::string activation = top.text("hidden_act", "swish");
  if (activation != "swish" && activation != "silu")
    top.refuse("hidden_act", "only \"swish\" is supported");
  const Keys attention = top.section("ska_attn");
  attention.no_others({"num_heads", "window_size", "rope_theta", "qkv_bias", "qk_norm"});
  model.n_heads = attention.integer("num_heads");
  model.n_heads_k = 1;
  model.n_heads_v = model.n_heads;
  model.window = kFullWindow;
  if (attention.has("window_size")) {
    model.window = attention.integer("window_size");
    if (model.window < 1) attention.refuse("window_size", "expected a positive integer or null");
  }
  model.rope_base = attention.number("rope_theta", 10000);
  attention.only("qkv_bias", false, "the projections have no bias");
  attention.only("qk_norm", false, "queries and keys are not normalised");
  return model;
}

}  // namespace

HfConfig parse_hf_config(std::string_view text, const std::string& origin) {
  const json object = try_parse_json(text);
  if (!object.is_object()) fail(origin, ": not a JSON object; expected the config.json of a model");
  const Keys top(object, origin, "");
  const std::string type = top.text("model_type", "rodimus");
  if (type != "rodimus") top.refuse("model_type", "expected \"rodimus\"");
  const bool authors = top.has("d_model"), fla = top.has("hidden_size");
  if (authors == fla) {
    fail(origin, ": ", authors ? "both" : "neither", " d_model, the key of the authors' form, ",
         authors ? "and" : "nor", " hidden_size, the key of fla's, ",
         authors ? "are there: remove the one that does not belong" : "is there");
  }
  top.only("residual_in_fp32", true,
           "the residual stream is f32 whatever the type of the products");
  HfConfig config;
  config.form = authors ? HfForm::authors : HfForm::fla;
  config.model = authors ? read_authors(top) : read_fla(top);
  // transformers leaves out what equals its own default, true.
  config.model.tied = top.boolean("tie_word_embeddings", true);
  config.max_positions = top.integer("max_position_embeddings", 0);
  return config;
}

}  // namespace rodimus
