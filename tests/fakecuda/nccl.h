// What tests make the fake NCCL do wrong, on this rank.
#pragma once

#include <nccl.h>

#include <string>

namespace fakecuda {

// The next `call` ("ncclAllReduce", ...) returns this and does nothing; ncclGetLastError says
// `text`.
void fail_next(const std::string& call, ncclResult_t result, const std::string& text);

// Another rank leaves: the next sum never ends, and ncclCommGetAsyncError says so.
void lose_rank(const std::string& text);

}  // namespace fakecuda
