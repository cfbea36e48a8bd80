// Shuffles, votes, reductions and matches: the last lane to arrive computes for all.
#include <cstring>

#include "tests/simt/engine.h"

namespace simt {
namespace {

template <class T>
T brought(const Thread* thread) {
  T value;
  std::memcpy(&value, thread->in, sizeof value);
  return value;
}
template <class T>
void bring(const T& value) {
  std::memcpy(current->in, &value, sizeof value);
  std::memset(current->out, 0xff, sizeof current->out);
}
template <class T>
void hand_out(Thread* thread, const T& value) {
  std::memcpy(thread->out, &value, sizeof value);
}
template <class T>
T received() {
  T value;
  std::memcpy(&value, current->out, sizeof value);
  return value;
}
template <class F>
void for_lanes(Warp& warp, unsigned mask, F f) {
  for (int lane = 0; lane < 32; ++lane) {
    if (((mask >> lane) & 1) && warp.lanes[lane]) f(lane, warp.lanes[lane]);
  }
}

struct ShuffleRequest {
  uint32_t value;
  Shuffle kind;
  int operand, width;
};

// The lane that a shuffle reads, by the table of the PTX ISA (shfl.sync); itself when outside.
int source_lane(int lane, const ShuffleRequest& request) {
  const int first = lane & ~(request.width - 1), end = first + request.width;
  switch (request.kind) {
    case Shuffle::index:
      return first + (request.operand & (request.width - 1));
    case Shuffle::up:
      return lane - request.operand >= first ? lane - request.operand : lane;
    case Shuffle::down:
      return lane + request.operand < end ? lane + request.operand : lane;
    case Shuffle::butterfly:
      return (lane ^ request.operand) < end ? lane ^ request.operand : lane;
  }
  return lane;
}

struct ReduceRequest {
  uint32_t value;
  Reduction kind;
  bool is_signed;
};

uint32_t combine(uint32_t a, uint32_t b, const ReduceRequest& request) {
  const bool less = request.is_signed ? int32_t(a) < int32_t(b) : a < b;
  switch (request.kind) {
    case Reduction::add:
      return a + b;
    case Reduction::min:
      return less ? a : b;
    case Reduction::max:
      return less ? b : a;
    case Reduction::bit_and:
      return a & b;
    case Reduction::bit_or:
      return a | b;
    case Reduction::bit_xor:
      return a ^ b;
  }
  return a;
}

}  // namespace

uint32_t shuffle(unsigned mask, uint32_t value, Shuffle kind, int operand, int width, Where where) {
  bring(ShuffleRequest{value, kind, operand, width});
  collective(
      mask, Op::shuffle,
      [](Warp& warp, unsigned lanes, const void*) {
        for_lanes(warp, lanes, [&](int lane, Thread* thread) {
          const int source = source_lane(lane, brought<ShuffleRequest>(thread));
          if ((lanes >> source) & 1 && warp.lanes[source]) {
            hand_out(thread, brought<ShuffleRequest>(warp.lanes[source]).value);
            return;
          }
          report("warp-mask", line_of(thread->where),
                 describe(thread) + ": the shuffle at " + line_of(thread->where) + " reads lane " +
                     std::to_string(source) + ", which its mask does not name");
        });
      },
      nullptr, where);
  return received<uint32_t>();
}

unsigned ballot(unsigned mask, bool vote, Where where) {
  bring(vote);
  collective(
      mask, Op::vote,
      [](Warp& warp, unsigned lanes, const void*) {
        unsigned votes = 0;
        for_lanes(warp, lanes, [&](int lane, Thread* thread) {
          votes |= unsigned{brought<bool>(thread)} << lane;
        });
        for_lanes(warp, lanes, [&](int, Thread* thread) { hand_out(thread, votes); });
      },
      nullptr, where);
  return received<unsigned>();
}

uint32_t reduce(unsigned mask, uint32_t value, Reduction kind, bool is_signed, Where where) {
  bring(ReduceRequest{value, kind, is_signed});
  collective(
      mask, Op::reduce,
      [](Warp& warp, unsigned lanes, const void*) {
        bool first = true;
        uint32_t sum = 0;
        for_lanes(warp, lanes, [&](int, Thread* thread) {
          const auto request = brought<ReduceRequest>(thread);
          sum = first ? request.value : combine(sum, request.value, request);
          first = false;
        });
        for_lanes(warp, lanes, [&](int, Thread* thread) { hand_out(thread, sum); });
      },
      nullptr, where);
  return received<uint32_t>();
}

uint32_t match_any(unsigned mask, uint64_t value, Where where) {
  bring(value);
  collective(
      mask, Op::match,
      [](Warp& warp, unsigned lanes, const void*) {
        for_lanes(warp, lanes, [&](int, Thread* thread) {
          unsigned same = 0;
          for_lanes(warp, lanes, [&](int other, Thread* peer) {
            same |= unsigned{brought<uint64_t>(peer) == brought<uint64_t>(thread)} << other;
          });
          hand_out(thread, same);
        });
      },
      nullptr, where);
  return received<unsigned>();
}

}  // namespace simt
