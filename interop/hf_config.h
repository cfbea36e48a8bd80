// config.json of a Hugging Face checkpoint, as the authors' code and as flash-linear-attention
// ("fla") write it. Both call the model "rodimus"; their keys differ.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "layers/config.h"

namespace rodimus {

enum class HfForm : uint8_t { authors, fla };
inline constexpr const char* name_of(HfForm form) {
  return form == HfForm::authors ? "the authors'" : "fla's";
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

}  // namespace rodimus
