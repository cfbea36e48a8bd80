// What precedes a document in evaluation and generation: the same as in training, where each
// document follows the EOS of the previous one.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "train/config/config.h"

namespace rodimus {

struct DocumentStart {
  int32_t token = -1;         // placed before a document; -1: none
  bool may_be_there = false;  // not added to a document that already begins with it (llm.c shards)
  std::string text = "nothing precedes it";  // for people: "after EOS (token 2)"

  bool put_before(std::span<const int32_t> document) const {
    return token >= 0 && !(may_be_there && !document.empty() && document.front() == token);
  }
};

// Follows the training data: data.document_delimiter if that is set; else `eos` (-1: unknown),
// unless data.reset_documents made documents start from an empty state; nothing with `no_bos`.
DocumentStart document_start(const Config& config, int32_t eos, bool no_bos);

}  // namespace rodimus
