// config.json of a Hugging Face checkpoint, as the authors' code and as flash-linear-attention
// ("fla") write it. Both call the model "rodimus"; their keys differ.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "interop/weight_type.h"
#include "layers/config.h"

namespace rodimus {

enum class HfForm : uint8_t { authors, fla };
inline constexpr const char* name_of(HfForm form) {
  return form == HfForm::authors ? "the authors'" : "fla's";
}

// The same as a word of the command line.
inline constexpr const char* option_of(HfForm form) {
  return form == HfForm::authors ? "authors" : "fla";
}

struct HfConfig {
  HfForm form = HfForm::authors;
  ModelConfig model;
  int64_t max_positions = 0;  // max_position_embeddings; 0 = not given
};

// Reads the text of a config.json; `origin` names it in errors. Throws Error naming the key when
// the file describes a model that this program would compute differently. Sizes that are possible
// but do not fit together are left to ModelConfig::validate().
HfConfig parse_hf_config(std::string_view text, const std::string& origin);

// Tokens that generation by other programs needs; -1: unknown.
struct HfTokens {
  int64_t begin = -1;  // what stands before a document
  int64_t end = -1;
};

// The inverse: the text of a config.json from which parse_hf_config() reads the same model.
// `config.model` must be valid. Throws Error naming the key of [model] that the form cannot
// express, and whether the other form can. In the authors' form the file also names the classes in
// interop/hf.
std::string format_hf_config(const HfConfig& config, const HfTokens& tokens, WeightType type);

// The text of generation_config.json. Padding is the token that ends a text, as in the released
// models.
std::string format_generation_config(const HfTokens& tokens);

}  // namespace rodimus
