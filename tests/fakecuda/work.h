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

// Whose taking part a piece needs. That of all ranks: it never runs at a random moment, because the
// others would not come. That of a rank that is gone: it never ends.
enum class Ranks : uint8_t { own, all, gone };

struct Work {
  std::function<void()> run;
  std::vector<std::shared_ptr<Work>> after;  // must be done first
  std::string what;
  Ranks ranks = Ranks::own;
  int polls = 0;  // how often somebody has asked whether it is done
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
                Ranks ranks = Ranks::own);
void finish(const WorkPtr& work);  // runs it and all that it waits for; null is done
bool poll(const WorkPtr& work);    // whether it is done; who asks again and again is waiting
void finish_all();
void give_up_on_gone_ranks();  // what waits for them ends without a result
void maybe_run_some();         // where the policy is random
size_t unfinished();           // pieces that have not run

// A mistake of the host code, reported where the emulator reports those of kernels, so a test
// fails.
void mistake(const char* kind, const std::string& message);
// A call of the fake that it does not know: says so and ends the program.
[[noreturn]] void not_implemented(const std::string& what);

// How often the host had to wait for work that was not done, since the last time this was asked.
int64_t take_waits();

// The cudaStreamWaitEvent with this number, counted from now on and from 1, does nothing; 0: none
// is ignored. What depends on a wait must be seen to fail without it.
void ignore_wait(int number);

// The GPUs of the machine that this process sees: number first and those after it. When nothing is
// said, one of its own. None: as on a machine without a driver.
void set_gpus(int first, int count);
// cudaGetDeviceCount fails with `error`; `version` is the CUDA version of the driver, as 13010 for
// 13.1, or 0: no driver. (cudaSuccess, kDriverVersion): as before.
inline constexpr int kDriverVersion = 13010, kRuntimeVersion = 13000;
void set_driver(cudaError_t error, int version);

// Reports a range that is not inside one live allocation of the device.
void require_device(const void* pointer, size_t bytes, const std::string& what);

}  // namespace fakecuda
