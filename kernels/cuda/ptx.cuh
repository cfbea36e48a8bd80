// All inline PTX of the project, for sm_80 and later. Each wrapper has an asm body and, below, its
// emulated twin. The twins are tested against the fragment tables of the PTX ISA
// (tests/simt/fragment_test.cpp), the asm against the PTX that nvcc emits (tests/simt/ptx_test.py).
// Addresses in shared memory are 32-bit offsets on both sides. Include dev.cuh, not this file.
#pragma once

#include <cstdint>

namespace rodimus::cuda::ptx {

#ifndef RODIMUS_SIMT

// ---- Asynchronous copies from device to shared memory -------------------------------------------

__device__ __forceinline__ uint32_t smem_u32(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// 16 bytes past L1; both addresses are multiples of 16. Only the first source_bytes are read, the
// rest of the 16 becomes zero: pass 0 (and any valid pointer) where a tile hangs over the edge.
__device__ __forceinline__ void cp_async16(uint32_t shared, const void* source,
                                           uint32_t source_bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(source),
               "r"(source_bytes)
               : "memory");
}
// The same for 8 and 4 bytes, through L1.
__device__ __forceinline__ void cp_async8(uint32_t shared, const void* source,
                                          uint32_t source_bytes = 8) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared), "l"(source),
               "r"(source_bytes)
               : "memory");
}
__device__ __forceinline__ void cp_async4(uint32_t shared, const void* source,
                                          uint32_t source_bytes = 4) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(source),
               "r"(source_bytes)
               : "memory");
}
// Closes the group of the copies issued by this thread since the last commit.
__device__ __forceinline__ void cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all but the youngest N groups of this thread have arrived. Other threads see the
// bytes after a barrier that follows.
template <int N>
__device__ __forceinline__ void cp_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- Matrix fragments ---------------------------------------------------------------------------

// Four 8x8 matrices of 16-bit elements: lane i gives the address of row i % 8 of matrix i / 8 and
// receives in r[j] the elements (i / 4, i % 4 * 2) and the next of matrix j; _t: transposed.
__device__ __forceinline__ void ldsm_x4(uint32_t (&r)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared)
               : "memory");
}
__device__ __forceinline__ void ldsm_x4_t(uint32_t (&r)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared)
               : "memory");
}
// Two matrices; the addresses of lanes 0 to 15 count.
__device__ __forceinline__ void ldsm_x2(uint32_t (&r)[2], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared)
               : "memory");
}
__device__ __forceinline__ void ldsm_x2_t(uint32_t (&r)[2], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared)
               : "memory");
}

// d (16x8, f32) += a (16x16, bf16) b (16x8, bf16), by a whole warp. With g = lane / 4, t = lane %
// 4: d[0..3] are (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1); a[0..3] the pairs from (g, 2t), (g+8,
// 2t), (g, 2t+8), (g+8, 2t+8); b0, b1 the pairs of rows 2t, 2t+1 and 2t+8, 2t+9 in column g.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// d (16x8, f32) += a (16x8, tf32) b (8x8, tf32): a[0..3] are (g, t), (g+8, t), (g, t+4), (g+8,
// t+4); b0, b1 are (t, g), (t+4, g). Operands keep 10 bits of mantissa: relative error 2^-11 after
// to_tf32.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// The nearest tf32 (ties away from zero), as the bits of a float.
__device__ __forceinline__ uint32_t to_tf32(float x) {
  uint32_t result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(x));
  return result;
}

// ---- Vector accesses: naturally aligned ---------------------------------------------------------

// Device memory (or any generic address).
__device__ __forceinline__ uint4 ldg128(const void* p) { return *static_cast<const uint4*>(p); }
__device__ __forceinline__ uint2 ldg64(const void* p) { return *static_cast<const uint2*>(p); }
__device__ __forceinline__ uint32_t ldg32(const void* p) {
  return *static_cast<const uint32_t*>(p);
}
__device__ __forceinline__ void stg128(void* p, uint4 v) { *static_cast<uint4*>(p) = v; }
__device__ __forceinline__ void stg64(void* p, uint2 v) { *static_cast<uint2*>(p) = v; }
__device__ __forceinline__ void stg32(void* p, uint32_t v) { *static_cast<uint32_t*>(p) = v; }
// Shared memory by offset.
__device__ __forceinline__ uint4 lds128(uint32_t shared) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(shared)
               : "memory");
  return v;
}
__device__ __forceinline__ uint2 lds64(uint32_t shared) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(shared) : "memory");
  return v;
}
__device__ __forceinline__ uint32_t lds32(uint32_t shared) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(shared) : "memory");
  return v;
}
__device__ __forceinline__ void sts128(uint32_t shared, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(shared), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w)
               : "memory");
}
__device__ __forceinline__ void sts64(uint32_t shared, uint2 v) {
  asm volatile("st.shared.v2.u32 [%0], {%1,%2};" ::"r"(shared), "r"(v.x), "r"(v.y) : "memory");
}
__device__ __forceinline__ void sts32(uint32_t shared, uint32_t v) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(shared), "r"(v) : "memory");
}

// ---- Arithmetic, barriers -----------------------------------------------------------------------

// 2^x, within 2 ulp; 0 for -inf; subnormal results are 0.
__device__ __forceinline__ float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// log2(x) for x > 0, absolute error 2^-22 near 1, elsewhere about 2 ulp.
__device__ __forceinline__ float lg2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// 1 / x, within 1 ulp.
__device__ __forceinline__ float rcp(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// A barrier for some warps of the block: id 1 to 15 (0 is __syncthreads), threads a multiple of 32.
__device__ __forceinline__ void bar_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#else  // the emulated twins; `where` is the calling line, for reports

using simt::Where;

inline uint32_t smem_u32(const void* shared, Where where = Where::current()) {
  return simt::shared_offset(shared, where);
}
inline void cp_async16(uint32_t shared, const void* source, uint32_t source_bytes = 16,
                       Where where = Where::current()) {
  simt::cp_async(shared, source, 16, source_bytes, where);
}
inline void cp_async8(uint32_t shared, const void* source, uint32_t source_bytes = 8,
                      Where where = Where::current()) {
  simt::cp_async(shared, source, 8, source_bytes, where);
}
inline void cp_async4(uint32_t shared, const void* source, uint32_t source_bytes = 4,
                      Where where = Where::current()) {
  simt::cp_async(shared, source, 4, source_bytes, where);
}
inline void cp_commit() { simt::cp_commit(); }
template <int N>
inline void cp_wait() {
  simt::cp_wait(N);
}

inline void ldsm_x4(uint32_t (&r)[4], uint32_t shared, Where where = Where::current()) {
  simt::ldmatrix(r, 4, false, shared, where);
}
inline void ldsm_x4_t(uint32_t (&r)[4], uint32_t shared, Where where = Where::current()) {
  simt::ldmatrix(r, 4, true, shared, where);
}
inline void ldsm_x2(uint32_t (&r)[2], uint32_t shared, Where where = Where::current()) {
  simt::ldmatrix(r, 2, false, shared, where);
}
inline void ldsm_x2_t(uint32_t (&r)[2], uint32_t shared, Where where = Where::current()) {
  simt::ldmatrix(r, 2, true, shared, where);
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                     Where where = Where::current()) {
  const uint32_t b[2] = {b0, b1};
  simt::mma_bf16(d, a, b, where);
}
inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                     Where where = Where::current()) {
  const uint32_t b[2] = {b0, b1};
  simt::mma_tf32(d, a, b, where);
}
inline uint32_t to_tf32(float x) { return simt::to_tf32(x); }

#define PTX_LOAD(name, type)                                        \
  inline type name(const void* p, Where where = Where::current()) { \
    return simt::load_value<type>(p, where);                        \
  }
#define PTX_STORE(name, type)                                         \
  inline void name(void* p, type v, Where where = Where::current()) { \
    simt::store_value(p, v, where);                                   \
  }
#define PTX_SHARED_LOAD(name, type)                                   \
  inline type name(uint32_t shared, Where where = Where::current()) { \
    return simt::load_shared<type>(shared, where);                    \
  }
#define PTX_SHARED_STORE(name, type)                                          \
  inline void name(uint32_t shared, type v, Where where = Where::current()) { \
    simt::store_shared(shared, v, where);                                     \
  }
PTX_LOAD(ldg128, uint4)
PTX_LOAD(ldg64, uint2)
PTX_LOAD(ldg32, uint32_t)
PTX_STORE(stg128, uint4)
PTX_STORE(stg64, uint2)
PTX_STORE(stg32, uint32_t)
PTX_SHARED_LOAD(lds128, uint4)
PTX_SHARED_LOAD(lds64, uint2)
PTX_SHARED_LOAD(lds32, uint32_t)
PTX_SHARED_STORE(sts128, uint4)
PTX_SHARED_STORE(sts64, uint2)
PTX_SHARED_STORE(sts32, uint32_t)
#undef PTX_LOAD
#undef PTX_STORE
#undef PTX_SHARED_LOAD
#undef PTX_SHARED_STORE

inline float ex2(float x) { return simt::flushed(std::exp2(simt::flushed(x))); }
inline float lg2(float x) { return simt::flushed(std::log2(simt::flushed(x))); }
inline float rcp(float x) { return simt::flushed(1.0f / simt::flushed(x)); }
inline void bar_sync(int id, int threads, Where where = Where::current()) {
  simt::barrier(id, threads, false, where);
}

#endif

}  // namespace rodimus::cuda::ptx
