// How a document begins, for evaluation and generation: as in training, where the EOS that ends one
// document stands before the next.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "train/config/config.h"

namespace rodimus {

struct DocumentStart {
  int32_t token = -1;         // put before a document; -1: nothing is
  bool may_be_there = false;  // not put before a document that begins with it (llm.c shards)
  std::string text = "nothing stands before it";  // for people: "after EOS (token 2)"

  bool put_before(std::span<const int32_t> document) const {
    return token >= 0 && !(may_be_there && !document.empty() && document.front() == token);
  }
};

// By what the model was trained on: after data.document_delimiter where that is set; else after
// `eos` (-1: unknown), unless data.reset_documents made documents begin in an empty state; nothing
// with `no_bos`.
DocumentStart document_start(const Config& config, int32_t eos, bool no_bos);

}  // namespace rodimus
