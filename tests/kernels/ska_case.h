// Cases of attention: inputs, one run on the backend under test, and plain loops to compare with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/ska.h"
#include "tests/support/compare.h"
#include "tests/support/device.h"
#include "tests/support/random.h"

namespace rodimus::testing {

template <class T>
struct SkaInputs {
  std::vector<T> q, k, v, d_o;
  std::vector<int32_t> starts;  // empty = null
};
template <class T>
SkaInputs<T> random_ska(const SkaDims& d, uint64_t seed) {
  const int64_t keys = d.B * (d.Tk == 0 ? d.T : d.Tk) * d.D, queries = d.B * d.T * d.H * d.D;
  return {cast<T>(normal(queries, seed)),
          cast<T>(normal(keys * d.Hk, seed + 1)),
          cast<T>(normal(keys * d.Hv, seed + 2)),
          cast<T>(normal(queries, seed + 3)),
          {}};
}

template <class T>
struct SkaResults {
  std::vector<T> o, dq, dk, dv;
  std::vector<float> lse;
};

template <class T>
SkaResults<T> run_ska(Backend exec, const SkaDims& d, const SkaInputs<T>& x) {
  const float nan = std::numeric_limits<float>::quiet_NaN();  // shows what was not overwritten
  const auto like = [&](const std::vector<T>& shape) {
    return Array<T>(static_cast<int64_t>(shape.size()), T(nan));
  };
  const Array<T> q(x.q), k(x.k), v(x.v), d_o(x.d_o);
  const Array<int32_t> starts(x.starts);
  const int32_t* const documents = x.starts.empty() ? nullptr : starts.data();
  Array<T> o = like(x.q), dq = like(x.q), dk = like(x.k), dv = like(x.v);
  Array<float> lse(d.B * d.H * d.T, nan);
  ska_forward<T>(exec, {.dims = d,
                        .q = q.data(),
                        .k = k.data(),
                        .v = v.data(),
                        .starts = documents,
                        .o = o.data(),
                        .lse = lse.data()});
  ska_backward<T>(exec, {.dims = d,
                         .q = q.data(),
                         .k = k.data(),
                         .v = v.data(),
                         .starts = documents,
                         .o = o.data(),
                         .lse = lse.data(),
                         .d_o = d_o.data(),
                         .dq = dq.data(),
                         .dk = dk.data(),
                         .dv = dv.data()});
  return {o.host(), dq.host(), dk.host(), dv.host(), lse.host()};
}

// Attention and its gradients by plain loops: sums in Number; scores, weights and their gradients
// pass through stored(), as if they were stored in arrays. In double with stored(x) = x this is the
// truth; in float with rounding to bf16 it is the yardstick for bf16 kernels.
template <class Number, class T, class Stored>
SkaResults<Number> plain_ska(SkaDims d, const SkaInputs<T>& in, Stored stored) {
  if (d.Tk == 0) d.Tk = d.T;
  const auto row = [&](int64_t b, int64_t i, int64_t length, int64_t h, int64_t heads) {
    return static_cast<size_t>(((b * length + i) * heads + h) * d.D);
  };
  const auto dot = [&](const std::vector<T>& x, size_t i, const std::vector<T>& y, size_t j) {
    Number sum = 0;
    for (size_t c = 0; c < static_cast<size_t>(d.D); ++c)
      sum += static_cast<Number>(to_f32(x[i + c])) * static_cast<Number>(to_f32(y[j + c]));
    return sum;
  };
  const auto add = [&](std::vector<Number>& to, size_t i, Number factor, const std::vector<T>& x,
                       size_t j) {
    for (size_t c = 0; c < static_cast<size_t>(d.D); ++c)
      to[i + c] += factor * static_cast<Number>(to_f32(x[j + c]));
  };
  const Number scale = 1 / std::sqrt(static_cast<Number>(d.D));
  SkaResults<Number> out{std::vector<Number>(in.q.size()),
                         std::vector<Number>(in.q.size()),
                         std::vector<Number>(in.k.size()),
                         std::vector<Number>(in.v.size()),
                         {}};
  for (int64_t b = 0; b < d.B; ++b) {
    for (int64_t h = 0; h < d.H; ++h) {
      for (int64_t i = 0; i < d.T; ++i) {
        const int64_t last = i + d.Tk - d.T;
        int64_t first = d.left < 0 ? 0 : std::max<int64_t>(0, last - d.left);
        if (!in.starts.empty())
          first = std::max<int64_t>(first, in.starts[static_cast<size_t>(b * d.T + i)]);
        const size_t at = row(b, i, d.T, h, d.H);
        const auto k_at = [&](int64_t j) { return row(b, j, d.Tk, h % d.Hk, d.Hk); };
        const auto v_at = [&](int64_t j) { return row(b, j, d.Tk, h % d.Hv, d.Hv); };
        std::vector<Number> p;
        Number largest = -std::numeric_limits<Number>::infinity(), sum = 0;
        for (int64_t j = first; j <= last; ++j) {
          p.push_back(stored(scale * dot(in.q, at, in.k, k_at(j))));
          largest = std::max(largest, p.back());
        }
        for (const Number s : p) sum += std::exp(s - largest);
        out.lse.push_back(static_cast<float>(largest + std::log(sum)));  // (B,H,T), in loop order
        for (Number& s : p) s = stored(std::exp(s - largest) / sum);
        for (int64_t j = first; j <= last; ++j)
          add(out.o, at, p[static_cast<size_t>(j - first)], in.v, v_at(j));
        Number delta = 0;
        for (size_t c = at; c < at + static_cast<size_t>(d.D); ++c) {
          out.o[c] = stored(out.o[c]);
          delta += out.o[c] * static_cast<Number>(to_f32(in.d_o[c]));
        }
        for (int64_t j = first; j <= last; ++j) {
          const Number weight = p[static_cast<size_t>(j - first)];
          const Number dp = stored(dot(in.d_o, at, in.v, v_at(j)));
          const Number ds = stored(weight * (dp - delta)) * scale;
          add(out.dv, v_at(j), weight, in.d_o, at);
          add(out.dk, k_at(j), ds, in.q, at);
          add(out.dq, at, ds, in.k, k_at(j));
        }
      }
    }
  }
  for (auto* gradient : {&out.dq, &out.dk, &out.dv})
    for (Number& x : *gradient) x = stored(x);
  return out;
}

}  // namespace rodimus::testing
