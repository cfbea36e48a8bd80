// oneDNN's matmul behind one function: primitives are cached per shape, and operands are copied
// where the library would be slow (strides that alias in the cache, bf16 on CPUs without
// AVX512_BF16).
#include "kernels/gemm.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <type_traits>

#include "kernels/convert.h"
#include "kernels/cpu/gemm_few_rows.h"
#include "kernels/cpu/parallel.h"
#include "kernels/memory.h"

namespace rodimus {

using namespace cpu;
namespace {

// oneDNN takes its thread count from the calling thread's OpenMP setting.
class OmpThreads {
 public:
  explicit OmpThreads(int threads) : before_(omp_get_max_threads()) {
    omp_set_num_threads(threads);
  }
  ~OmpThreads() { omp_set_num_threads(before_); }
  OmpThreads(const OmpThreads&) = delete;
  OmpThreads& operator=(const OmpThreads&) = delete;

 private:
  int before_;
};

// Whether oneDNN uses `isa`: the processor has it and ONEDNN_MAX_CPU_ISA does not exclude it.
bool has_isa(dnnl::cpu_isa isa) {
  static const auto present = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto wanted = static_cast<unsigned>(isa);
  return (present & wanted) == wanted;
}

const dnnl::engine& engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

struct Product {
  dnnl::memory::desc a, b, c;
  dnnl::matmul primitive;
};

template <class T>
constexpr auto kType =
    std::is_same_v<T, float> ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;

template <class In, class Out>
Product make_product(const GemmDims& d, bool add) {
  const auto matrix = [](int64_t rows, int64_t cols, bool transposed, int64_t ld, auto type) {
    return dnnl::memory::desc({rows, cols}, type,
                              transposed ? dnnl::memory::dims{1, ld} : dnnl::memory::dims{ld, 1});
  };
  Product p;
  p.a = matrix(d.m, d.k, d.transpose_a, d.lda, kType<In>);
  p.b = matrix(d.k, d.n, d.transpose_b, d.ldb, kType<In>);
  p.c = matrix(d.m, d.n, false, d.ldc, kType<Out>);
  dnnl::primitive_attr attr;
  if (add) {
    dnnl::post_ops ops;
    ops.append_sum(1.0f);
    attr.set_post_ops(ops);
  }
#if DNNL_VERSION_MAJOR >= 3  // which has no descriptors of operations any more
  p.primitive = dnnl::matmul({engine(), p.a, p.b, p.c, attr});
#else
  p.primitive = dnnl::matmul({dnnl::matmul::desc(p.a, p.b, p.c), attr, engine()});
#endif
  return p;
}

// This thread's primitive for these sizes. A training run needs a few dozen shapes; generation may
// need many more, hence the limit.
template <class In, class Out>
const Product& cached_product(const GemmDims& d, bool add, int threads) {
  constexpr size_t kMaxCached = 512;
  thread_local std::map<std::array<int64_t, 8>, Product> cache;
  const int64_t flags = d.transpose_a | d.transpose_b << 1 | add << 2;
  const std::array<int64_t, 8> key = {d.m, d.n, d.k, d.lda, d.ldb, d.ldc, flags, threads};
  if (const auto found = cache.find(key); found != cache.end()) return found->second;
  if (cache.size() >= kMaxCached) cache.clear();
  return cache.emplace(key, make_product<In, Out>(d, add)).first->second;
}

template <class In, class Out>
void multiply(const Cpu& exec, const GemmDims& d, Out* c, const In* a, const In* b, bool add) {
  // Below about 10 us of work, waking the other threads takes longer than the product.
  constexpr double kSerialFlops = 1e6;
  const double flops =
      2.0 * static_cast<double>(d.m) * static_cast<double>(d.n) * static_cast<double>(d.k);
  const int threads = flops < kSerialFlops ? 1 : std::max(exec.threads, 1);
  const OmpThreads scope(threads);
  try {
    const Product& p = cached_product<In, Out>(d, add, threads);
    thread_local dnnl::stream stream(engine());
    // The library only reads a and b, but its memory objects have no const form.
    p.primitive.execute(stream, {{DNNL_ARG_SRC, {p.a, engine(), const_cast<In*>(a)}},
                                 {DNNL_ARG_WEIGHTS, {p.b, engine(), const_cast<In*>(b)}},
                                 {DNNL_ARG_DST, {p.c, engine(), c}}});
    stream.wait();
  } catch (const dnnl::error& error) {
    fail("gemm: oneDNN says '", error.what(), "' to m = ", d.m, ", n = ", d.n, ", k = ", d.k,
         ", lda = ", d.lda, ", ldb = ", d.ldb, ", ldc = ", d.ldc);
  }
}

// A matrix as stored, (rows, cols) with leading dimension ld.
template <class T>
struct Stored {
  const T* data;
  int64_t rows, cols, ld;
};

// y (rows, cols; leading dimension ld) = x, cast.
template <class To, class From>
void copy_matrix(const Cpu& exec, To* y, int64_t ld, const Stored<From>& x) {
  parallel_rows(exec, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    Cpu serial{1};
    for (int64_t r = begin; r < end; ++r) convert(serial, y + r * ld, x.data + r * x.ld, x.cols);
  });
}

// oneDNN's AVX2 kernel for outputs with a small side walks down the columns of unpacked operands
// when a is transposed (weight gradients). If rows are a multiple of 1 KiB apart, these accesses
// map to few cache sets: 28 GFLOP/s instead of 65 for m = 1024, n = 256, k = 4096 on one core,
// while a copy with other strides costs 3 % of the product.
bool strides_alias(const GemmDims& d, int64_t ld) {
  return d.transpose_a && !d.transpose_b && !has_isa(dnnl::cpu_isa::avx512_core) && ld % 256 == 0 &&
         std::min(d.m, d.n) <= 512 && std::min(d.m, d.n) >= 64 && d.k >= 64;
}

// f32 copies of those operands that need one.
class Staged {
 public:
  template <class T>
  Staged(const Cpu& exec, const Stored<T>& x, bool wanted)
      : ld_(wanted ? ld_of(x.cols) : 0), copy_(wanted ? x.rows * ld_ : 0) {
    if (wanted) copy_matrix(exec, copy_.data(), ld_, x);
  }
  static int64_t ld_of(int64_t cols) { return (cols + 15) / 16 * 16 + 16; }
  int64_t ld() const { return ld_; }
  const float* data() const { return copy_.data(); }

 private:
  int64_t ld_;
  memory::Scratch<float> copy_;
};

void multiply_f32(const Cpu& exec, GemmDims d, float* c, Stored<float> a, Stored<float> b,
                  bool add) {
  const bool stage_a = strides_alias(d, a.ld), stage_b = strides_alias(d, b.ld);
  const Staged a_copy(exec, a, stage_a), b_copy(exec, b, stage_b);
  d.lda = stage_a ? a_copy.ld() : a.ld;
  d.ldb = stage_b ? b_copy.ld() : b.ld;
  multiply(exec, d, c, stage_a ? a_copy.data() : a.data, stage_b ? b_copy.data() : b.data, add);
}

void say_widening_once() {
  static std::atomic_flag said;
  if (!said.test_and_set()) {
    std::fputs("note: this CPU has no bf16 matrix product; bf16 products are computed in f32\n",
               stderr);
  }
}

template <class Out>
void multiply_widened(const Cpu& exec, GemmDims d, Out* c, const Stored<bf16>& a,
                      const Stored<bf16>& b, bool add) {
  say_widening_once();
  const Staged a_wide(exec, a, true), b_wide(exec, b, true);
  d.lda = a_wide.ld();
  d.ldb = b_wide.ld();
  if constexpr (std::is_same_v<Out, float>) {
    multiply(exec, d, c, a_wide.data(), b_wide.data(), add);
  } else {
    const memory::Scratch<float> wide(d.m * d.n);
    GemmDims packed = d;
    packed.ldc = d.n;
    multiply(exec, packed, wide.data(), a_wide.data(), b_wide.data(), add);
    copy_matrix(exec, c, d.ldc, Stored<float>{wide.data(), d.m, d.n, d.n});
  }
}

}  // namespace

bool cpu_multiplies_bf16() { return has_isa(dnnl::cpu_isa::avx512_core_bf16); }

ScratchBytes gemm_scratch(const Cpu&, DType in, DType out, GemmDims d) {
  d = checked_gemm_dims(d, 0, out);
  if (d.m == 0 || d.n == 0 || d.k == 0) return {};
  if (d.m <= cpu::kFewRows && !d.transpose_a && d.transpose_b) return {};
  constexpr int64_t kFloat = sizeof(float);
  const bool widens = in == DType::bf16;
  if (widens && cpu_multiplies_bf16()) return {};
  const auto copy = [&](int64_t rows, int64_t cols, int64_t ld) {
    return widens || strides_alias(d, ld) ? rows * Staged::ld_of(cols) * kFloat : 0;
  };
  ScratchBytes blocks{copy(d.transpose_a ? d.k : d.m, d.transpose_a ? d.m : d.k, d.lda),
                      copy(d.transpose_b ? d.n : d.k, d.transpose_b ? d.k : d.n, d.ldb)};
  if (widens && out != DType::f32) blocks.push_back(d.m * d.n * kFloat);
  return blocks;
}

GemmDims checked_gemm_dims(GemmDims d, float beta, DType out) {
  CHECK(d.m >= 0 && d.n >= 0 && d.k >= 0, "gemm: m = ", d.m, ", n = ", d.n, ", k = ", d.k,
        ", need sizes >= 0");
  CHECK(beta == 0 || (beta == 1 && out == DType::f32), "gemm: beta = ", beta,
        ", need 0, or 1 with an f32 output");
  const int64_t a_cols = d.transpose_a ? d.m : d.k, b_cols = d.transpose_b ? d.k : d.n;
  if (d.lda == 0) d.lda = a_cols;
  if (d.ldb == 0) d.ldb = b_cols;
  if (d.ldc == 0) d.ldc = d.n;
  CHECK(d.lda >= a_cols && d.ldb >= b_cols && d.ldc >= d.n, "gemm: leading dimensions ", d.lda,
        ", ", d.ldb, ", ", d.ldc, " are below the row lengths ", a_cols, ", ", b_cols, ", ", d.n);
  return d;
}

template <class In, class Out>
void gemm(Cpu& exec, GemmDims d, Out* c, const In* a, const In* b, float beta) {
  d = checked_gemm_dims(d, beta, DTypeOf<Out>::value);
  const Stored<In> a_stored{a, d.transpose_a ? d.k : d.m, d.transpose_a ? d.m : d.k, d.lda};
  const Stored<In> b_stored{b, d.transpose_b ? d.n : d.k, d.transpose_b ? d.k : d.n, d.ldb};
  if (d.m == 0 || d.n == 0) return;
  const bool add = beta == 1;
  if (d.k == 0) {
    if (!add)
      for (int64_t r = 0; r < d.m; ++r) std::fill_n(c + r * d.ldc, d.n, Out(0.0f));
    return;
  }
  if (d.m <= cpu::kFewRows && !d.transpose_a && d.transpose_b) {
    d.lda = a_stored.ld;
    d.ldb = b_stored.ld;
    cpu::gemm_few_rows(exec, d, c, a, b, beta);
    return;
  }
  if constexpr (std::is_same_v<In, float>) {
    multiply_f32(exec, d, c, a_stored, b_stored, add);
  } else if (cpu_multiplies_bf16()) {
    multiply(exec, d, c, a, b, add);
  } else {
    multiply_widened(exec, d, c, a_stored, b_stored, add);
  }
}

template void gemm(Cpu&, GemmDims, float*, const float*, const float*, float);
template void gemm(Cpu&, GemmDims, float*, const bf16*, const bf16*, float);
template void gemm(Cpu&, GemmDims, bf16*, const bf16*, const bf16*, float);

}  // namespace rodimus
