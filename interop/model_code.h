// The files of interop/hf, which stand beside the weights in an exported folder. They are part of
// the program, so an installed one needs no source tree.
#pragma once

#include <span>
#include <string_view>

namespace rodimus {

struct ModelCode {
  std::string_view name, text;
};

// The build writes the source of this function: cmake/embed.cmake.
std::span<const ModelCode> model_code();

}  // namespace rodimus
