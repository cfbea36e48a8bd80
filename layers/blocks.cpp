#include "layers/blocks.h"

namespace rodimus {

const BlockType& block_type(std::string_view name) {
  const auto* const found = std::find_if(kBlockTypes.begin(), kBlockTypes.end(),
                                         [&](const BlockType* type) { return type->name == name; });
  if (found != kBlockTypes.end()) return **found;
  std::string known;
  for (const BlockType* type : kBlockTypes)
    known += concat(known.empty() ? "" : ", ", "\"", type->name, "\"");
  fail("model.block = \"", name, "\": there is no such block; there are ", known);
}

std::vector<std::string> block_names() {
  std::vector<std::string> names;
  for (const BlockType* type : kBlockTypes) names.emplace_back(type->name);
  return names;
}

}  // namespace rodimus
