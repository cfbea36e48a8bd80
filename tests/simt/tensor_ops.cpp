// Tensor-core products, ldmatrix and asynchronous copies. Who holds which element is written from
// the PTX ISA; fragment_test.cpp checks it against a second, independent statement of the same.
#include <cmath>
#include <cstring>
#include <new>

#include "tests/simt/engine.h"

namespace simt {
namespace {

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
float low_bf16(uint32_t pair) { return from_bits(pair << 16); }
float high_bf16(uint32_t pair) { return from_bits(pair & 0xffff0000u); }
float as_tf32(uint32_t bits) { return from_bits(bits & 0xffffe000u); }  // 10 bits of mantissa count

struct Fragments {  // of one lane
  uint32_t a[4], b[2];
  float c[4];
};
static_assert(sizeof(Fragments) <= sizeof(Thread::in));

// In place: a copy would wait for each of the stores before it.
const Fragments& fragments_of(const Thread* thread) {
  return *std::launder(reinterpret_cast<const Fragments*>(thread->in));
}

// d = a b + c for all lanes.
template <int K>
void multiply(Warp& warp, const float (&a)[16][K], const float (&b)[K][8]) {
  float c[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments& f = fragments_of(warp.lanes[lane]);
    const int row = lane / 4, column = lane % 4 * 2;
    c[row][column] = f.c[0];
    c[row][column + 1] = f.c[1];
    c[row + 8][column] = f.c[2];
    c[row + 8][column + 1] = f.c[3];
  }
  add_products(c, a, b);
  for (int lane = 0; lane < 32; ++lane) {
    const int row = lane / 4, column = lane % 4 * 2;
    const float d[4] = {c[row][column], c[row][column + 1], c[row + 8][column],
                        c[row + 8][column + 1]};
    std::memcpy(warp.lanes[lane]->out, d, sizeof d);
  }
  launch_counters.mma += 1;
}

bool whole(const Warp& warp) {
  for (const Thread* thread : warp.lanes) {
    if (!thread) return false;  // reported when the mask was checked
  }
  return true;
}

void multiply_bf16(Warp& warp, unsigned, const void*) {
  if (!whole(warp)) return;
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments& f = fragments_of(warp.lanes[lane]);
    const int group = lane / 4, pair = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) {  // a0: rows 0-7, a1: rows 8-15, a2, a3: the same of columns 8-15
      const int row = group + i % 2 * 8, column = pair + i / 2 * 8;
      a[row][column] = low_bf16(f.a[i]);
      a[row][column + 1] = high_bf16(f.a[i]);
    }
    for (int i = 0; i < 2; ++i) {
      b[pair + i * 8][group] = low_bf16(f.b[i]);
      b[pair + i * 8 + 1][group] = high_bf16(f.b[i]);
    }
  }
  multiply(warp, a, b);
}

void multiply_tf32(Warp& warp, unsigned, const void*) {
  if (!whole(warp)) return;
  float a[16][8], b[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments& f = fragments_of(warp.lanes[lane]);
    const int group = lane / 4, column = lane % 4;
    for (int i = 0; i < 4; ++i) a[group + i % 2 * 8][column + i / 2 * 4] = as_tf32(f.a[i]);
    for (int i = 0; i < 2; ++i) b[column + i * 4][group] = as_tf32(f.b[i]);
  }
  multiply(warp, a, b);
}

void mma(float* d, const uint32_t* a, const uint32_t* b, Complete complete, Where where) {
  Thread* thread = current;
  auto* f = new (thread->in) Fragments;
  for (int i = 0; i < 4; ++i) f->a[i] = a[i];
  for (int i = 0; i < 2; ++i) f->b[i] = b[i];
  for (int i = 0; i < 4; ++i) f->c[i] = d[i];
  collective(kWholeWarp, Op::mma, complete, nullptr, where);
  std::memcpy(d, thread->out, 4 * sizeof(float));
}

struct MatrixLoad {
  int matrices;
  bool transposed;
};

void load_matrices(Warp& warp, unsigned, const void* argument) {
  if (!whole(warp)) return;
  const auto& load = *static_cast<const MatrixLoad*>(argument);
  uint16_t element[4][8][8];
  for (int i = 0; i < 8 * load.matrices; ++i) {  // lane i names row i % 8 of matrix i / 8
    uint32_t offset;
    std::memcpy(&offset, warp.lanes[i]->in, sizeof offset);
    if (size_t{offset} + 16 <= kSharedArena) {
      std::memcpy(element[i / 8][i % 8], shared_base + offset, 16);
    } else {
      std::memset(element[i / 8][i % 8], 0xff, 16);  // reported by the lane
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int row = lane / 4, column = lane % 4 * 2;
    for (int m = 0; m < load.matrices; ++m) {
      const uint32_t low = load.transposed ? element[m][column][row] : element[m][row][column];
      const uint32_t high =
          load.transposed ? element[m][column + 1][row] : element[m][row][column + 1];
      const uint32_t both = low | high << 16;
      std::memcpy(warp.lanes[lane]->out + 4 * m, &both, sizeof both);
    }
  }
  launch_counters.ldmatrix += 1;
}

void land(AsyncCopy& copy) {
  copy.landed = true;
  void* to = shared_at(copy.to, copy.bytes, "cp.async", copy.where);
  if (!to) return;
  const Site site{nullptr, &copy.where};
  if (copy.from_bytes > 0) check_access(copy.from, copy.from_bytes, Access::load, site);
  check_access(to, copy.bytes, Access::store, site);
  std::memcpy(to, copy.from, copy.from_bytes);
  std::memset(static_cast<char*>(to) + copy.from_bytes, 0, copy.bytes - copy.from_bytes);
}

}  // namespace

void mma_bf16(float* d, const uint32_t* a, const uint32_t* b, Where where) {
  mma(d, a, b, multiply_bf16, where);
}
void mma_tf32(float* d, const uint32_t* a, const uint32_t* b, Where where) {
  mma(d, a, b, multiply_tf32, where);
}

void ldmatrix(uint32_t* registers, int matrices, bool transposed, uint32_t offset, Where where) {
  Thread* thread = current;
  std::memcpy(thread->in, &offset, sizeof offset);
  if (int(thread->lane) < 8 * matrices) {  // only these lanes' addresses count
    if (void* row = shared_at(offset, 16, "ldmatrix", where)) {
      on_access(row, 16, Access::load, {nullptr, &where});
    }
  }
  const MatrixLoad load{matrices, transposed};
  collective(kWholeWarp, Op::ldmatrix, load_matrices, &load, where);
  std::memcpy(registers, thread->out, size_t(matrices) * sizeof(uint32_t));
}

void cp_async(uint32_t to, const void* from, uint32_t bytes, uint32_t from_bytes, Where where) {
  const Site site{nullptr, &where};
  if (reinterpret_cast<uintptr_t>(from) % bytes != 0) {
    report("misaligned", line_of(where),
           describe(current) + ": source of cp.async at " + line_of(where));
  }
  if (!in_allocation(from, 1)) {  // also where no byte is read: what hardware does then is not said
    report("out-of-bounds", line_of(where),
           describe(current) + ": source of cp.async is not in device memory at " + line_of(where));
  }
  if (config.count) {
    if (from_bytes > 0) count_access(from, from_bytes, Access::load, site);
    count_access(shared_base + to, bytes, Access::store, site);
  }
  AsyncCopy copy{to, from, bytes, from_bytes, false, where};
  // The race build checks at the wait, where the bytes are there at the latest.
  const bool early = !checking() && (config.landing == Landing::early ||
                                     (config.landing == Landing::random && (random_number() & 1)));
  if (early) {
    land(copy);
  } else if (void* destination = shared_at(to, bytes, "cp.async", where)) {
    check_access(destination, bytes, Access::store, site);
    std::memset(destination, 0xff, bytes);  // nobody may read it before the wait
    if (checking()) shared_unwritten(to, bytes);
  }
  current->copies.push_back(copy);
}

void cp_commit() {
  unsigned open = unsigned(current->copies.size());
  for (const unsigned group : current->groups) open -= group;
  current->groups.push_back(open);
}

void cp_wait(unsigned groups_left) {
  Thread* thread = current;
  while (thread->groups.size() > groups_left) {
    const unsigned count = thread->groups.front();
    thread->groups.erase(thread->groups.begin());
    for (unsigned i = 0; i < count; ++i) {
      if (!thread->copies[i].landed) land(thread->copies[i]);
    }
    thread->copies.erase(thread->copies.begin(), thread->copies.begin() + count);
  }
}

uint32_t to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return std::isfinite(x) ? (bits + 0x1000u) & 0xffffe000u : bits;
}

float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

void load_bytes(void* to, const void* from, size_t bytes, Where where) {
  on_access(from, bytes, Access::load, {nullptr, &where});
  std::memcpy(to, from, bytes);
}
void store_bytes(void* to, const void* from, size_t bytes, Where where) {
  on_access(to, bytes, Access::store, {nullptr, &where});
  std::memcpy(to, from, bytes);
}

}  // namespace simt
