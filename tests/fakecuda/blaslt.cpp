// cuBLASLt for tests: the product as a plain loop in f32, run when the stream's turn comes. Checks
// what the library checks (sizes against each other, leading dimensions) and what it does not (that
// the operands lie in live device memory).
#include <cublasLt.h>
#include <cuda_bf16.h>

#include <cstring>
#include <vector>

#include "tests/fakecuda/work.h"
#include "tests/simt/emulator.h"

using namespace fakecuda;

namespace {

struct Desc {
  bool transpose_a = false, transpose_b = false;
};
struct Layout {  // column-major
  cudaDataType_t type;
  size_t rows, cols;
  size_t ld;
  size_t element() const { return type == CUDA_R_16BF ? 2 : 4; }
  size_t bytes() const { return ((cols - 1) * ld + rows) * element(); }
};
Desc& desc_of(cublasLtMatmulDesc_t handle) { return *reinterpret_cast<Desc*>(handle); }
const Layout& layout_of(cublasLtMatrixLayout_t handle) {
  return *reinterpret_cast<const Layout*>(handle);
}

float load(const void* matrix, const Layout& layout, size_t row, size_t col) {
  const size_t at = col * layout.ld + row;
  return layout.type == CUDA_R_16BF
             ? __bfloat162float(static_cast<const __nv_bfloat16*>(matrix)[at])
             : static_cast<const float*>(matrix)[at];
}
void store(void* matrix, const Layout& layout, size_t row, size_t col, float value) {
  const size_t at = col * layout.ld + row;
  if (layout.type == CUDA_R_16BF) {
    static_cast<__nv_bfloat16*>(matrix)[at] = __float2bfloat16(value);
  } else {
    static_cast<float*>(matrix)[at] = value;
  }
}

struct Product {
  Desc desc;
  Layout a, b, d;
  size_t m() const { return d.rows; }
  size_t n() const { return d.cols; }
  size_t k() const { return desc.transpose_a ? a.rows : a.cols; }

  bool sizes_match() const {
    return (desc.transpose_a ? a.cols : a.rows) == m() &&
           (desc.transpose_b ? b.cols : b.rows) == k() &&
           (desc.transpose_b ? b.rows : b.cols) == n() && a.ld >= a.rows && b.ld >= b.rows &&
           d.ld >= d.rows;
  }

  void run(void* out, const void* a_data, const void* b_data, float alpha, float beta) const {
    require_device(a_data, a.bytes(), "cublasLtMatmul, A");
    require_device(b_data, b.bytes(), "cublasLtMatmul, B");
    require_device(out, d.bytes(), "cublasLtMatmul, D");
    if (simt::config.launch_only) return;
    std::vector<float> a_packed(m() * k()), sums(m());  // (k, m)
    for (size_t x = 0; x < k(); ++x)
      for (size_t i = 0; i < m(); ++i)
        a_packed[x * m() + i] = desc.transpose_a ? load(a_data, a, x, i) : load(a_data, a, i, x);
    for (size_t j = 0; j < n(); ++j) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (size_t x = 0; x < k(); ++x) {
        const float factor = desc.transpose_b ? load(b_data, b, j, x) : load(b_data, b, x, j);
        for (size_t i = 0; i < m(); ++i) sums[i] += factor * a_packed[x * m() + i];
      }
      for (size_t i = 0; i < m(); ++i) {
        const float before = beta == 0 ? 0.0f : beta * load(out, d, i, j);
        store(out, d, i, j, alpha * sums[i] + before);
      }
      simt::mark_written(static_cast<std::byte*>(out) + j * d.ld * d.element(), m() * d.element());
    }
  }
};

}  // namespace

extern "C" {

const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS"
                                         : "a status of the fake cuBLASLt";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static int here = 0;
  *handle = reinterpret_cast<cublasLtHandle_t>(&here);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *desc = reinterpret_cast<cublasLtMatmulDesc_t>(new Desc);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete &desc_of(desc);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  cublasOperation_t operation;
  if (bytes != sizeof(operation)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&operation, value, bytes);
  if (attribute == CUBLASLT_MATMUL_DESC_TRANSA) {
    desc_of(desc).transpose_a = operation == CUBLAS_OP_T;
  } else if (attribute == CUBLASLT_MATMUL_DESC_TRANSB) {
    desc_of(desc).transpose_b = operation == CUBLAS_OP_T;
  } else {
    not_implemented("cublasLtMatmulDescSetAttribute " + std::to_string(attribute));
  }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
  if (type != CUDA_R_16BF && type != CUDA_R_32F) not_implemented("a matrix of another type");
  if (rows == 0 || cols == 0 || ld < static_cast<int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(
      new Layout{type, rows, cols, static_cast<size_t>(ld)});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete &layout_of(layout);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new int(0));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete reinterpret_cast<int*>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t,
                                                    const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;  // hints for a choice that a plain loop does not have
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* found) {
  *found = 0;
  const Product product{desc_of(desc), layout_of(a), layout_of(b), layout_of(d)};
  if (wanted < 1 || !product.sizes_match()) return CUBLAS_STATUS_INVALID_VALUE;
  std::memset(results, 0, sizeof(*results));
  results->state = CUBLAS_STATUS_SUCCESS;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t*, void*, size_t, cudaStream_t stream) {
  const Product product{desc_of(desc), layout_of(a_layout), layout_of(b_layout),
                        layout_of(d_layout)};
  if (!product.sizes_match()) return CUBLAS_STATUS_INVALID_VALUE;
  if (c != d) not_implemented("cublasLtMatmul with C apart from D");
  const float alpha_value = *static_cast<const float*>(alpha);
  const float beta_value = *static_cast<const float*>(beta);
  enqueue(stream_of(stream), "cublasLtMatmul",
          [=] { product.run(d, a, b, alpha_value, beta_value); });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
