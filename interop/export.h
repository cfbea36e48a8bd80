// The parameters of a model as the weights of a Hugging Face checkpoint: the way back from
// interop/import.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "interop/hf_config.h"
#include "layers/parameter.h"

namespace rodimus {

// Elements [first, first + count) of a parameter.
using ReadValues =
    std::function<void(const Parameter& parameter, int64_t first, int64_t count, float* out)>;

struct ExportPlan {
  HfForm form = HfForm::authors;
  WeightType type = WeightType::f32;
  // Most bytes of weights in a file, unless a single tensor is larger. At most this much becomes
  // model.safetensors, more becomes shards and their index.
  uint64_t shard_bytes = 5'000'000'000;
};

// Bytes of weights that export_weights() writes.
uint64_t weight_bytes(std::span<Parameter* const> parameters, WeightType type);

// Writes the weights into `folder`, in the order of `parameters`, rounded to nearest even. Values
// are read in pieces, so this takes a few MB of memory whatever the size of the model. After each
// piece `written` gets the bytes done so far, and may throw to stop. Returns the number of
// safetensors files. Throws Error naming the parameter that is NaN or infinite, or that `plan.type`
// cannot hold; `origin` names where the values come from.
int64_t export_weights(const std::filesystem::path& folder, std::span<Parameter* const> parameters,
                       const ReadValues& read, const ExportPlan& plan, const std::string& origin,
                       const std::function<void(uint64_t bytes)>& written);

}  // namespace rodimus
