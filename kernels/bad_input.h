// The error messages for invalid input, shared by all backends: the CPU checks before it computes;
// a GPU kernel records the fault, and memory::download() or wait() throws.
#pragma once

#include "base/error.h"
#include "kernels/head_loss.h"

namespace rodimus {

[[noreturn]] inline void fail_token_id(int64_t id, int64_t position, int64_t vocab) {
  fail("embedding: token id ", id, " at position ", position, " is outside the vocabulary [0, ",
       vocab, "); were the shards made with another tokenizer than the config's vocab_size?");
}

[[noreturn]] inline void fail_target(int64_t target, int64_t row, int64_t vocab) {
  fail("head_loss: target ", target, " in row ", row, ", expected 0 .. ", vocab - 1, " (vocab ",
       vocab, ") or ", kIgnoreTarget, " for none; was the data made with another tokenizer?");
}

}  // namespace rodimus
