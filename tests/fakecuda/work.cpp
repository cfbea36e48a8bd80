#include "tests/fakecuda/work.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>

#include "tests/simt/emulator.h"
#include "tests/simt/engine.h"

namespace fakecuda {
namespace {

struct State {
  Policy policy = Policy::lazy;
  std::mt19937_64 random{1};
  Stream default_stream;
  std::set<Stream*> streams{&default_stream};
  std::vector<WorkPtr> waiting;  // not done when it was last looked at

  // Kernels are launched through the emulator, which hands them over here. Not at static
  // initialisation: the emulator's own may come later.
  State() {
    simt::enqueue_hook = [](cudaStream_t stream, std::function<void()> run) {
      enqueue(stream_of(stream), "kernel", std::move(run));
      return cudaSuccess;
    };
  }
};
State& state() {
  static State* instance = new State;  // never destroyed: device memory is freed at the very end
  return *instance;
}

void forget_done() {
  std::erase_if(state().waiting, [](const WorkPtr& work) { return work->done; });
}

bool ready(const Work& work) {
  return std::all_of(work.after.begin(), work.after.end(),
                     [](const WorkPtr& before) { return before->done; });
}

}  // namespace

void set_policy(Policy policy, uint64_t seed) {
  finish_all();
  state().policy = policy;
  state().random.seed(seed);
}

Policy policy() { return state().policy; }

Stream& stream_of(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return state().default_stream;
  auto* const stream = reinterpret_cast<Stream*>(handle);
  if (state().streams.count(stream) == 0) not_implemented("a stream that does not exist");
  return *stream;
}

cudaStream_t add_stream(bool blocking) {
  auto* const stream = new Stream;
  stream->blocking = blocking;
  state().streams.insert(stream);
  return reinterpret_cast<cudaStream_t>(stream);
}

void remove_stream(cudaStream_t handle) {
  Stream& stream = stream_of(handle);
  finish(stream.last);
  state().streams.erase(&stream);
  delete &stream;
}

WorkPtr enqueue(Stream& stream, std::string what, std::function<void()> run, Ranks ranks) {
  auto work = std::make_shared<Work>();
  work->run = std::move(run);
  work->what = std::move(what);
  work->ranks = ranks;
  const auto wait_for = [&](const WorkPtr& before) {
    if (!before || before->done) return;
    work->after.push_back(before);
    if (before->ranks == Ranks::gone) work->ranks = Ranks::gone;
  };
  wait_for(stream.last);
  for (const WorkPtr& event : stream.also_after) wait_for(event);
  stream.also_after.clear();
  // The legacy default stream and the blocking streams take turns.
  if (&stream == &state().default_stream) {
    for (const Stream* other : state().streams)
      if (other->blocking) wait_for(other->last);
  } else if (stream.blocking) {
    wait_for(state().default_stream.last);
  }
  stream.last = work;
  state().waiting.push_back(work);
  if (state().waiting.size() % 1024 == 0) forget_done();
  // What launches nothing has no order to get wrong, and memory that is freed at once is reserved
  // again: a step of a large model would not fit otherwise.
  const bool at_once = state().policy == Policy::eager || simt::config.launch_only;
  if (at_once && work->ranks != Ranks::gone) {
    finish(work);
  } else {
    maybe_run_some();
  }
  return work;
}

// With a stack of its own: a chain of work may be thousands of pieces long.
void finish(const WorkPtr& wanted) {
  if (!wanted || wanted->done) return;
  if (wanted->ranks == Ranks::gone) {
    std::fprintf(stderr, "the host would wait for ever for: %s\n", wanted->what.c_str());
    std::abort();
  }
  std::vector<WorkPtr> stack{wanted};
  while (!stack.empty()) {
    const WorkPtr work = stack.back();
    if (work->done) {
      stack.pop_back();
      continue;
    }
    // CUDA promises no order among what a piece waits for.
    std::shuffle(work->after.begin(), work->after.end(), state().random);
    const auto missing = std::find_if(work->after.begin(), work->after.end(),
                                      [](const WorkPtr& before) { return !before->done; });
    if (missing != work->after.end()) {
      if ((*missing)->running) not_implemented("work that waits for itself: " + work->what);
      stack.push_back(*missing);
      continue;
    }
    work->running = true;
    work->run();
    work->done = true;
    work->running = false;
    work->run = nullptr;
    work->after.clear();
    stack.pop_back();
  }
}

void finish_all() {
  for (const Stream* stream : state().streams) finish(stream->last);
  forget_done();
}

void maybe_run_some() {
  if (state().policy != Policy::random) return;
  while (state().random() % 3 == 0) {
    forget_done();
    if (state().waiting.empty()) return;
    const WorkPtr work = state().waiting[state().random() % state().waiting.size()];
    if (!work->running && work->ranks == Ranks::own && ready(*work)) finish(work);
  }
}

bool poll(const WorkPtr& work) {
  constexpr int kPatience = 5;  // as long as a GPU needs to get there
  maybe_run_some();
  if (!work) return true;
  if (!work->done && work->ranks != Ranks::gone && ++work->polls > kPatience) finish(work);
  return work->done;
}

void give_up_on_gone_ranks() {
  for (const WorkPtr& work : state().waiting) {
    if (work->ranks == Ranks::gone) work->ranks = Ranks::own;
  }
}

size_t unfinished() {
  forget_done();
  return state().waiting.size();
}

void mistake(const char* kind, const std::string& message) { simt::report(kind, message, message); }

void not_implemented(const std::string& what) {
  std::fprintf(stderr, "the fake CUDA runtime of the tests does not know: %s\n", what.c_str());
  std::abort();
}

void require_device(const void* pointer, size_t bytes, const std::string& what) {
  if (bytes > 0 && !simt::in_allocation(pointer, bytes)) {
    mistake("runtime-oob", what + ": " + std::to_string(bytes) +
                               " bytes are not inside one live allocation of the device");
  }
}

}  // namespace fakecuda
