// What tests make the fake NCCL do wrong, on this rank.
#pragma once

#include <nccl.h>

#include <string>
#include <vector>

namespace fakecuda {

// The next `call` ("ncclAllReduce", ...) returns this and does nothing; ncclGetLastError says
// `text`.
void fail_next(const std::string& call, ncclResult_t result, const std::string& text);

// The names of the calls that make communicators and sums, since the last time this was asked.
std::vector<std::string> take_calls();

// Another rank leaves: the next sum never ends, and ncclCommGetAsyncError says so.
void lose_rank(const std::string& text);

}  // namespace fakecuda
