// Every flag, type and staging branch of gemm, compared with the triple loop in double.
#include "kernels/gemm.h"

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/reference/gemm.h"
#include "tests/support/compare.h"
#include "tests/support/device.h"
#include "tests/support/random.h"

namespace rodimus {
namespace {

using testing::Array;
using testing::backend;
using testing::Backend;
using testing::cast;
using testing::close;
using testing::in;
using testing::to_double;

struct Case {
  GemmDims dims;
  float beta = 0;
  int threads = 1;
};

template <class In, class Out>
struct Operands {
  std::vector<In> a, b;
  std::vector<Out> c;
  int64_t lda, ldb, ldc;

  explicit Operands(const Case& t)
      : lda(t.dims.lda           ? t.dims.lda
            : t.dims.transpose_a ? t.dims.m
                                 : t.dims.k),
        ldb(t.dims.ldb           ? t.dims.ldb
            : t.dims.transpose_b ? t.dims.k
                                 : t.dims.n),
        ldc(t.dims.ldc ? t.dims.ldc : t.dims.n) {
    const GemmDims& d = t.dims;
    a = cast<In>(testing::normal((d.transpose_a ? d.k : d.m) * lda, 1));
    b = cast<In>(testing::normal((d.transpose_b ? d.n : d.k) * ldb, 2));
    // beta = 0 must not read c.
    c = t.beta == 0 ? std::vector<Out>(static_cast<size_t>(d.m * ldc),
                                       Out(std::numeric_limits<float>::quiet_NaN()))
                    : cast<Out>(testing::normal(d.m * ldc, 3));
  }
};

// Separately, the (m, n) part of c and the gap after each row.
template <class T>
std::vector<double> part(const std::vector<T>& c, int64_t m, int64_t ldc, int64_t from,
                         int64_t to) {
  std::vector<double> out;
  for (int64_t r = 0; r < m; ++r)
    for (int64_t j = from; j < to; ++j)
      out.push_back(static_cast<float>(c[static_cast<size_t>(r * ldc + j)]));
  return out;
}

template <class In, class Out>
void check(const Case& t) {
  const GemmDims& d = t.dims;
  SCOPED_TRACE(::testing::Message()
               << "m " << d.m << " n " << d.n << " k " << d.k << " transpose " << d.transpose_a
               << d.transpose_b << " beta " << t.beta << " threads " << t.threads << " types "
               << sizeof(In) << sizeof(Out));
  Operands<In, Out> x(t);
  const auto a = to_double(x.a), b = to_double(x.b);
  auto want = to_double(x.c);
  reference::gemm(d.m, d.n, d.k, d.transpose_a, d.transpose_b, x.lda, x.ldb, x.ldc, want.data(),
                  a.data(), b.data(), t.beta);
  const auto before = x.c;
  Backend exec = backend(t.threads);
  Array<Out> c(x.c);
  gemm(exec, d, c.data(), in(x.a).data(), in(x.b).data(), t.beta);
  x.c = c.host();
  // k roundings of random sign to f32, then one to the output type.
  const double tolerance = epsilon_of(DTypeOf<Out>::value) +
                           2 * std::sqrt(static_cast<double>(d.k)) * epsilon_of(DType::f32);
  std::vector<double> want_part;
  for (int64_t r = 0; r < d.m; ++r)
    for (int64_t j = 0; j < d.n; ++j) want_part.push_back(want[static_cast<size_t>(r * x.ldc + j)]);
  EXPECT_TRUE(close(part(x.c, d.m, x.ldc, 0, d.n), want_part, tolerance));
  for (int64_t r = 0; r < d.m && x.ldc > d.n; ++r)
    EXPECT_EQ(0, std::memcmp(x.c.data() + r * x.ldc + d.n, before.data() + r * x.ldc + d.n,
                             static_cast<size_t>(x.ldc - d.n) * sizeof(Out)))
        << "wrote between the rows";
}

void check_types(Case t) {
  for (const float beta : {0.0f, 1.0f}) {
    t.beta = beta;
    check<float, float>(t);
    check<bf16, float>(t);
  }
  t.beta = 0;
  check<bf16, bf16>(t);
}

TEST(Gemm, EveryFlagAtOddSizes) {
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                                {3, 5, 7},
                                {1, 33, 17},
                                {2, 1030, 35},
                                {4, 6, 9},
                                {33, 1, 65},
                                {31, 64, 1},
                                {67, 129, 61},
                                {130, 16, 257}}) {
    for (const bool transpose_a : {false, true}) {
      for (const bool transpose_b : {false, true}) {
        for (const int threads : testing::thread_counts({1, 2})) {
          GemmDims d{
              .m = m, .n = n, .k = k, .transpose_a = transpose_a, .transpose_b = transpose_b};
          check_types({.dims = d, .threads = threads});
          d.lda = (transpose_a ? m : k) + 3;
          d.ldb = (transpose_b ? k : n) + 1;
          d.ldc = n + 5;
          check_types({.dims = d, .threads = threads});
        }
      }
    }
  }
}

TEST(Gemm, WeightGradientsWithAliasingStrides) {
  // Strides of 256 elements trigger the staged copy of a, b or both.
  for (const auto& [m, n] : {std::array<int64_t, 2>{256, 64}, {64, 256}, {256, 256}, {512, 72}})
    for (const int threads : testing::thread_counts({1, 2}))
      check_types({.dims = {.m = m, .n = n, .k = 131, .transpose_a = true}, .threads = threads});
}

TEST(Gemm, EmptySizes) {
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{0, 3, 2}, {3, 0, 2}, {0, 0, 0}, {3, 2, 0}})
    check_types({.dims = {.m = m, .n = n, .k = k}});
}

TEST(Gemm, SameBitsTwice) {
  for (const int threads : testing::thread_counts({1, 2})) {
    const Case t{.dims = {.m = 70, .n = 33, .k = 3000, .transpose_a = true}, .threads = threads};
    const Operands<float, float> x(t);
    Array<float> first(x.c), second(x.c);
    Backend exec = backend(threads);
    gemm(exec, t.dims, first.data(), in(x.a).data(), in(x.b).data(), 0);
    gemm(exec, t.dims, second.data(), in(x.a).data(), in(x.b).data(), 0);
    EXPECT_EQ(first.host(), second.host());
  }
}

TEST(Gemm, NanComesThrough) {
  const GemmDims d{.m = 9, .n = 17, .k = 40};
  Operands<float, float> x({.dims = d});
  x.a[40 * 4 + 3] = std::numeric_limits<float>::quiet_NaN();
  Backend exec = backend();
  Array<float> c(x.c);
  gemm(exec, d, c.data(), in(x.a).data(), in(x.b).data(), 0);
  x.c = c.host();
  for (int64_t i = 0; i < d.m * d.n; ++i)
    EXPECT_EQ(std::isnan(x.c[static_cast<size_t>(i)]), i / d.n == 4) << i;
}

TEST(Gemm, RejectsWhatItCannotDo) {
  Backend exec = backend();
  float f[16] = {};
  bf16 h[16] = {};
  const GemmDims d{.m = 2, .n = 2, .k = 2};
  EXPECT_THROW(gemm(exec, d, f, f + 4, f + 8, 0.5f), Error);
  EXPECT_THROW(gemm(exec, d, h, h + 4, h + 8, 1), Error);
  EXPECT_THROW(gemm(exec, {.m = -1, .n = 2, .k = 2}, f, f + 4, f + 8, 0), Error);
  EXPECT_THROW(gemm(exec, {.m = 2, .n = 2, .k = 2, .ldb = 1}, f, f + 4, f + 8, 0), Error);
}

}  // namespace
}  // namespace rodimus
