// The table of blocks: the valid values of model.block. A new block needs a source file with its
// make function, and a declaration and a line here.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "layers/block.h"

namespace rodimus {

struct BlockType {
  std::string_view name;   // model.block
  std::string_view title;  // for people
  // The keys of [model] that this block reads, beyond those that every model has.
  std::span<const std::string_view> keys;
  // Throws Error naming the offending key, its value and what is allowed.
  void (*check)(const ModelConfig& config);
  // `prefix` starts the parameters' names and ends in a dot.
  std::unique_ptr<Block> (*make)(const ModelConfig& config, const std::string& prefix);

  bool reads(std::string_view key) const {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  }
};

extern const BlockType kRodimus, kRodimusPlus;  // rodimus.cpp

inline constexpr std::array<const BlockType*, 2> kBlockTypes{&kRodimus, &kRodimusPlus};

// Throws Error when no block has this name.
const BlockType& block_type(std::string_view name);
std::vector<std::string> block_names();

}  // namespace rodimus
