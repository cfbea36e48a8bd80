// How a tensor core sums, which is not as IEEE 754 does. After Fasi, Higham, Mikaitis and Pranesh,
// "Numerical behavior of NVIDIA tensor cores" (2021), and Khattak and Mikaitis, "Accurate models of
// NVIDIA tensor cores" (arXiv:2512.07004): the accumulator and a block of products, all exact, are
//   - aligned to the largest exponent among them, a product's being the sum of its factors',
//   - each cut towards zero to a fixed number of fraction bits there,
//   - summed without error, and the sum cut towards zero to a float.
// Every step errs to the same side, by half a unit of the accumulator's last place on average:
// after n steps that is n / 2 units, where rounding to nearest leaves about sqrt(n) / 3.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/simt/engine.h"

namespace simt {
namespace {

struct Arithmetic {
  int fraction_bits;
  int blocks;  // of products, of an instruction: one after the other through the accumulator
};
Arithmetic arithmetic_of(TensorCore core) {
  return core == TensorCore::a100 ? Arithmetic{24, 2} : Arithmetic{25, 1};
}

// 2^exponent of x; 0 of 0. Subnormal numbers have the smallest exponent of the normal ones;
// infinity and NaN are given the largest, and come through by themselves.
double power_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = std::clamp(bits & 0x7f800000u, 0x00800000u, 0x7f000000u);
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return x == 0 ? 0 : power;
}

typedef double Four __attribute__((vector_size(32)));  // columns: 4 doubles are a register of AVX

Four cut(Four x) {
  return Four{std::trunc(x[0]), std::trunc(x[1]), std::trunc(x[2]), std::trunc(x[3])};
}
float cut_to_float(double x) {
  if (std::abs(x) < 0x1p-126) return float(std::trunc(x * 0x1p149) * 0x1p-149);
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= ~uint64_t{0x1fffffff};  // 29 bits that a float lacks
  std::memcpy(&x, &bits, sizeof x);
  return float(x);  // infinite from 2^128 on
}

}  // namespace

template <int K>
void add_products(float (&c)[16][8], const float (&a)[16][K], const float (&b)[K][8]) {
  const Arithmetic arithmetic = arithmetic_of(config.tensor_core);
  const double last_place = std::ldexp(1.0, -arithmetic.fraction_bits);
  const int block = K / arithmetic.blocks;
  double a_power[16][K];
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < K; ++k) a_power[i][k] = power_of(a[i][k]);
  }
  for (int column = 0; column < 8; column += 4) {
    Four factor[K], power[K];
    for (int k = 0; k < K; ++k) {
      const float* x = b[k] + column;
      factor[k] = Four{x[0], x[1], x[2], x[3]};
      power[k] = Four{power_of(x[0]), power_of(x[1]), power_of(x[2]), power_of(x[3])};
    }
    for (int i = 0; i < 16; ++i) {
      float* x = c[i] + column;
      for (int first = 0; first < K; first += block) {
        constexpr double kLeast = 0x1p-252;  // of products; not 0, by which we would divide
        Four largest = Four{power_of(x[0]), power_of(x[1]), power_of(x[2]), power_of(x[3])};
        largest = largest > kLeast ? largest : Four{} + kLeast;
        for (int k = first; k < first + block; ++k) {
          const Four of_product = power[k] * a_power[i][k];
          largest = of_product > largest ? of_product : largest;
        }
        // Exact in double: a product has 22 bits at most, the sum of 17 terms below 4 * 2^25 has
        // 32, and all else are powers of two.
        const Four unit = largest * last_place, per_unit = 1 / unit;
        Four sum = cut(Four{x[0], x[1], x[2], x[3]} * per_unit);
        for (int k = first; k < first + block; ++k) {
          sum += cut(factor[k] * double{a[i][k]} * per_unit);
        }
        sum *= unit;
        for (int j = 0; j < 4; ++j) x[j] = cut_to_float(sum[j]);
      }
    }
  }
}

template void add_products(float (&)[16][8], const float (&)[16][16], const float (&)[16][8]);
template void add_products(float (&)[16][8], const float (&)[16][8], const float (&)[8][8]);

}  // namespace simt
