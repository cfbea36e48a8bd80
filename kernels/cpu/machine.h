// Compares the instruction sets that the program was built for with those of this machine. Without
// this check a binary built with -march=native dies elsewhere with "Illegal instruction" and no
// hint of what to do. A program only has to link the object library rodimus_machine: the check then
// runs before any of its other code.
#pragma once

#include <cstdint>

// Every instruction set beyond the x86-64 baseline that the compiler uses on its own, as X(name in
// __builtin_cpu_supports, macro defined by the compiler when it may use it).
#if defined(__x86_64__)
#define RODIMUS_CPU_FEATURES(X)             \
  X("sse3", __SSE3__)                       \
  X("ssse3", __SSSE3__)                     \
  X("sse4.1", __SSE4_1__)                   \
  X("sse4.2", __SSE4_2__)                   \
  X("popcnt", __POPCNT__)                   \
  X("lzcnt", __LZCNT__)                     \
  X("movbe", __MOVBE__)                     \
  X("bmi", __BMI__)                         \
  X("bmi2", __BMI2__)                       \
  X("avx", __AVX__)                         \
  X("f16c", __F16C__)                       \
  X("fma", __FMA__)                         \
  X("avx2", __AVX2__)                       \
  X("avxvnni", __AVXVNNI__)                 \
  X("avx512f", __AVX512F__)                 \
  X("avx512cd", __AVX512CD__)               \
  X("avx512bw", __AVX512BW__)               \
  X("avx512dq", __AVX512DQ__)               \
  X("avx512vl", __AVX512VL__)               \
  X("avx512ifma", __AVX512IFMA__)           \
  X("avx512vbmi", __AVX512VBMI__)           \
  X("avx512vbmi2", __AVX512VBMI2__)         \
  X("avx512vnni", __AVX512VNNI__)           \
  X("avx512bitalg", __AVX512BITALG__)       \
  X("avx512vpopcntdq", __AVX512VPOPCNTDQ__) \
  X("avx512bf16", __AVX512BF16__)           \
  X("avx512fp16", __AVX512FP16__)
#else
#define RODIMUS_CPU_FEATURES(X)
#endif

namespace rodimus::cpu {

// A set of instruction sets: bit i is entry i of RODIMUS_CPU_FEATURES.
using CpuFeatures = uint32_t;

// The instruction sets that the compiler was allowed to use. A constant, so that reading it runs no
// code from the file compiled for the wider instruction set.
extern const CpuFeatures cpu_features_built_for;

// The instruction sets that this machine and its operating system support.
CpuFeatures cpu_features_present();

// Returns if `present` includes all of `built_for`. Otherwise writes one line to stderr that says
// what is missing and how to rebuild, and ends the process with exit code 1.
void require_cpu_features(CpuFeatures built_for, CpuFeatures present);

}  // namespace rodimus::cpu
