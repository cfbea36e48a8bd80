// The work queue of the fake CUDA runtime. Every call on a stream becomes a piece of work that
// waits for the pieces before it; when it really runs is the policy's choice, within what CUDA
// promises. Host code that forgot a wait then finds work undone: it reads memory that was never
// written, or hands on bytes that have changed since.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace fakecuda {

enum class Policy : uint8_t {
  lazy,    // work runs when somebody waits for it, not before
  random,  // ready pieces run at random moments, the rest as in lazy
  eager,   // at the call: finds nothing, a check of the fake itself
};
void set_policy(Policy policy, uint64_t seed = 1);
Policy policy();

struct Work {
  std::function<void()> run;
  std::vector<std::shared_ptr<Work>> after;  // must be done first
  std::string what;
  bool waits_for_other_ranks = false;  // never at a random moment: the other ranks would not come
  bool done = false, running = false;
};
using WorkPtr = std::shared_ptr<Work>;

struct Stream {
  WorkPtr last;
  std::vector<WorkPtr> also_after;  // events that the next piece waits for
  bool blocking = true;             // takes turns with the default stream
};

Stream& stream_of(cudaStream_t handle);
cudaStream_t add_stream(bool blocking);
void remove_stream(cudaStream_t handle);

WorkPtr enqueue(Stream& stream, std::string what, std::function<void()> run,
                bool waits_for_other_ranks = false);
void finish(const WorkPtr& work);  // runs it and all that it waits for; null is done
void finish_all();
void maybe_run_some();  // where the policy is random
size_t unfinished();    // pieces that have not run

// A mistake of the host code, reported where the emulator reports those of kernels, so a test
// fails.
void mistake(const char* kind, const std::string& message);
// A call of the fake that it does not know: says so and ends the program.
[[noreturn]] void not_implemented(const std::string& what);

// Reports a range that is not inside one live allocation of the device.
void require_device(const void* pointer, size_t bytes, const std::string& what);

}  // namespace fakecuda
