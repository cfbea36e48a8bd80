// Any bytes as the config.json of a Hugging Face checkpoint: only Error may come out, and every
// size that is accepted must be one that ModelConfig can hold.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "interop/hf_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto config =
        rodimus::parse_hf_config({reinterpret_cast<const char*>(data), size}, "fuzz");
    const rodimus::ModelConfig& model = config.model;
    for (const int64_t n : {model.vocab_size, model.d_model, model.n_layers, model.mem_size,
                            model.conv_width, model.gate_rank, model.n_heads, model.n_heads_k,
                            model.n_heads_v, model.window, config.max_positions})
      if (n > rodimus::kMaxSize) std::abort();
    if (model.window < 0 || model.gate_rank < 0) std::abort();
  } catch (const rodimus::Error&) {
  }
  return 0;
}
