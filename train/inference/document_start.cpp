#include "train/inference/document_start.h"

#include "base/error.h"

namespace rodimus {

DocumentStart document_start(const Config& config, int32_t eos, bool no_bos) {
  if (no_bos) return {.text = "nothing precedes it (--no-bos)"};
  if (config.data.document_delimiter >= 0) {
    const auto delimiter = static_cast<int32_t>(config.data.document_delimiter);
    return {delimiter, true, concat("with data.document_delimiter (token ", delimiter, ")")};
  }
  if (eos < 0) return {.text = "nothing precedes it: no EOS is known"};
  if (config.data.reset_documents)
    return {.text = "nothing precedes it: trained with data.reset_documents"};
  return {eos, false, concat("after EOS (token ", eos, ")")};
}

}  // namespace rodimus
