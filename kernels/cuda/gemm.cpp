// cuBLASLt behind one function. It thinks in columns: a row-major matrix is the transpose of the
// column-major one with the same bytes, so c = op(a) op(b) is computed as c^T = op(b)^T op(a)^T,
// which only swaps the operands. The plan of a shape (descriptor, layouts, the algorithm that the
// heuristic picks) is made once.
#include "kernels/gemm.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <memory>
#include <type_traits>

#include "kernels/cuda/runtime.h"

namespace rodimus {
namespace {

void check_blaslt(cublasStatus_t status, const char* call, const GemmDims& d) {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
    return;
  fail("gemm: ", call, ": ", cublasLtGetStatusString(status), " (", static_cast<int>(status),
       ") for m = ", d.m, ", n = ", d.n, ", k = ", d.k, ", lda = ", d.lda, ", ldb = ", d.ldb,
       ", ldc = ", d.ldc, d.transpose_a ? ", a transposed" : "",
       d.transpose_b ? ", b transposed" : "");
}

template <auto destroy>
struct Destroy {
  template <class T>
  void operator()(T* handle) const {
    (void)destroy(handle);
  }
};
template <class T, auto destroy>
using Handle = std::unique_ptr<std::remove_pointer_t<T>, Destroy<destroy>>;
using MatmulDesc = Handle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Handle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Handle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

struct Plan {
  MatmulDesc desc;
  Layout a, b, c;
  cublasLtMatmulAlgo_t algo;
};

template <class T>
constexpr cudaDataType_t kType = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;

// The largest power of two up to 256 that divides the address.
uint32_t alignment_of(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p) | 256;
  return uint32_t{1} << std::countr_zero(address);
}

struct Alignments {
  uint32_t a, b, c;
};

template <class In, class Out>
Plan make_plan(const Cuda& gpu, const GemmDims& d, const Alignments& alignments) {
  Plan plan;
  cublasLtMatmulDesc_t desc = nullptr;
  // f32 products in f32, not tf32: what a user who asks for f32 expects.
  check_blaslt(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F),
               "cublasLtMatmulDescCreate", d);
  plan.desc.reset(desc);
  const auto set_desc = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    check_blaslt(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof(value)),
                 "cublasLtMatmulDescSetAttribute", d);
  };
  // Its first operand is our b.
  set_desc(CUBLASLT_MATMUL_DESC_TRANSA, d.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set_desc(CUBLASLT_MATMUL_DESC_TRANSB, d.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);

  // `cols` and `rows` as stored by us, row-major.
  const auto layout = [&](Layout& into, cudaDataType_t type, int64_t rows, int64_t cols,
                          int64_t ld) {
    cublasLtMatrixLayout_t made = nullptr;
    check_blaslt(cublasLtMatrixLayoutCreate(&made, type, static_cast<uint64_t>(cols),
                                            static_cast<uint64_t>(rows), ld),
                 "cublasLtMatrixLayoutCreate", d);
    into.reset(made);
  };
  layout(plan.a, kType<In>, d.transpose_a ? d.k : d.m, d.transpose_a ? d.m : d.k, d.lda);
  layout(plan.b, kType<In>, d.transpose_b ? d.n : d.k, d.transpose_b ? d.k : d.n, d.ldb);
  layout(plan.c, kType<Out>, d.m, d.n, d.ldc);

  cublasLtMatmulPreference_t preference = nullptr;
  check_blaslt(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", d);
  const Preference owner(preference);
  const auto set_preference = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check_blaslt(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
                 "cublasLtMatmulPreferenceSetAttribute", d);
  };
  set_preference(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{gpu.workspace_bytes});
  // A product split along k is summed in f32 in the workspace: in the output it would round to bf16
  // once per part.
  set_preference(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                 uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set_preference(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignments.b);
  set_preference(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignments.a);
  set_preference(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignments.c);
  set_preference(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignments.c);

  cublasLtMatmulHeuristicResult_t best = {};
  int found = 0;
  check_blaslt(
      cublasLtMatmulAlgoGetHeuristic(gpu.blaslt, desc, plan.b.get(), plan.a.get(), plan.c.get(),
                                     plan.c.get(), preference, 1, &best, &found),
      "cublasLtMatmulAlgoGetHeuristic", d);
  check_blaslt(found > 0 ? best.state : CUBLAS_STATUS_NOT_SUPPORTED,
               "cublasLtMatmulAlgoGetHeuristic found no algorithm", d);
  plan.algo = best.algo;
  return plan;
}

// A training run meets some dozens of shapes; generation may meet many more, hence the bound.
template <class In, class Out>
const Plan& cached_plan(const Cuda& gpu, const GemmDims& d, const Alignments& alignments) {
  constexpr size_t kMaxCached = 512;
  thread_local std::map<std::array<int64_t, 11>, Plan> cache;
  const std::array<int64_t, 11> key = {
      gpu.device,  d.m,   d.n,           d.k,           d.lda,
      d.ldb,       d.ldc, d.transpose_a, d.transpose_b, alignments.a << 16 | alignments.b,
      alignments.c};
  if (const auto found = cache.find(key); found != cache.end()) return found->second;
  if (cache.size() >= kMaxCached) cache.clear();
  return cache.emplace(key, make_plan<In, Out>(gpu, d, alignments)).first->second;
}

}  // namespace

template <class In, class Out>
void gemm(Cuda& gpu, GemmDims d, Out* c, const In* a, const In* b, float beta) {
  d = checked_gemm_dims(d, beta, DTypeOf<Out>::value);
  if (d.m == 0 || d.n == 0) return;
  if (d.k == 0) {
    if (beta == 0) {
      CUDA_CHECK(cudaMemset2DAsync(c, static_cast<size_t>(d.ldc) * sizeof(Out), 0,
                                   static_cast<size_t>(d.n) * sizeof(Out), static_cast<size_t>(d.m),
                                   gpu.stream));
    }
    return;
  }
  const Plan& plan =
      cached_plan<In, Out>(gpu, d, {alignment_of(a), alignment_of(b), alignment_of(c)});
  const float one = 1;
  check_blaslt(cublasLtMatmul(gpu.blaslt, plan.desc.get(), &one, b, plan.b.get(), a, plan.a.get(),
                              &beta, c, plan.c.get(), c, plan.c.get(), &plan.algo, gpu.workspace,
                              gpu.workspace_bytes, gpu.stream),
               "cublasLtMatmul", d);
}

template void gemm(Cuda&, GemmDims, float*, const float*, const float*, float);
template void gemm(Cuda&, GemmDims, float*, const bf16*, const bf16*, float);
template void gemm(Cuda&, GemmDims, bf16*, const bf16*, const bf16*, float);

}  // namespace rodimus
