// Weights of a Hugging Face checkpoint into the parameters of a model.
#pragma once

#include <string>
#include <vector>

#include "interop/hf_config.h"
#include "interop/safetensors.h"
#include "layers/parameter.h"

namespace rodimus {

// The tensors of which the parameter `name` consists in a file of this form, stacked along their
// first axis. One with the same name in the authors' form; fla splits some into two of equal size.
std::vector<std::string> stored_names(const std::string& name, HfForm form);

struct ImportReport {
  std::vector<std::string> passed_over;  // state that transformers' generate() left in the file
  std::vector<std::string> types;        // of the weights, sorted: "BF16", "F32"
  bool stored_head = false;              // of a tied model; it equals the embedding
};

// Fills all parameters, which must be in host memory. Names, shapes and types are checked before
// anything is read. Throws Error naming the first tensor that is missing, that no parameter takes,
// that has another shape or type, or that holds NaN or infinity; also when a tied model has a
// stored head that differs from its embedding. Reads at most kImportPiece elements at a time.
inline constexpr int64_t kImportPiece = int64_t{1} << 20;
ImportReport import_weights(const WeightFolder& weights, HfForm form, bool tied,
                            ParameterBuffers& buffers);

}  // namespace rodimus
