// DDTS compared with itself: split with carried state, token by token, documents, threads; NaN and
// extreme decays.
#include <gtest/gtest.h>

#include <limits>

#include "tests/kernels/ddts_case.h"

namespace rodimus::testing {
namespace {

// Two f32 evaluations in different order: each is within sqrt(terms) units of the truth, see
// ddts_test.cpp.
constexpr double kTolerance = 1.2e-6;

// The GPU emulator is slow: there, use problems with as many edge cases but fewer tokens.
constexpr bool kSmall = kDevice == Device::cuda;

// Tokens [begin, end) of every sequence.
Doubles tokens(const Doubles& x, DdtsDims dims, int64_t begin, int64_t end) {
  const int64_t width = static_cast<int64_t>(x.size()) / (dims.B * dims.T);
  Doubles out;
  for (int64_t b = 0; b < dims.B; ++b)
    out.insert(out.end(), x.begin() + (b * dims.T + begin) * width,
               x.begin() + (b * dims.T + end) * width);
  return out;
}

DdtsInputs tokens(const DdtsInputs& in, int64_t begin, int64_t end) {
  DdtsInputs out = in;
  out.dims.T = end - begin;
  for (auto member :
       {&DdtsInputs::q, &DdtsInputs::k, &DdtsInputs::v, &DdtsInputs::g, &DdtsInputs::d_o})
    out.*member = tokens(in.*member, in.dims, begin, end);
  return out;
}

// Compares a run over tokens [begin, end) with the same part of a run over all tokens.
void expect_tokens(const DdtsOutputs& part, const DdtsOutputs& whole, DdtsDims dims, int64_t begin,
                   int64_t end) {
  for (auto member :
       {&DdtsOutputs::o, &DdtsOutputs::dq, &DdtsOutputs::dk, &DdtsOutputs::dv, &DdtsOutputs::dg})
    EXPECT_TRUE(close(part.*member, tokens(whole.*member, dims, begin, end), kTolerance))
        << "tokens " << begin << " .. " << end;
}

// Runs the pieces between consecutive `cuts` with the state carried forward and its gradient
// carried back.
void expect_split_equals_whole(const DdtsInputs& in, const std::vector<int64_t>& cuts) {
  const DdtsOutputs whole = run_ddts<float>(in, 2);
  const int64_t pieces = static_cast<int64_t>(cuts.size()) - 1;
  std::vector<DdtsInputs> inputs;
  Doubles state = in.state_in;
  for (int64_t i = 0; i < pieces; ++i) {
    inputs.push_back(tokens(in, cuts[i], cuts[i + 1]));
    inputs.back().state_in = state;
    state = run_ddts<float>(inputs.back()).state_out;
  }
  EXPECT_TRUE(close(state, whole.state_out, kTolerance));
  Doubles dstate = in.dstate_out;
  for (int64_t i = pieces - 1; i >= 0; --i) {
    inputs[i].dstate_out = dstate;
    const DdtsOutputs part = run_ddts<float>(inputs[i]);
    expect_tokens(part, whole, in.dims, cuts[i], cuts[i + 1]);
    dstate = part.dstate_in;
  }
  EXPECT_TRUE(close(dstate, whole.dstate_in, kTolerance));
}

TEST(DdtsInvariants, SplitAndCarriedEqualsWhole) {
  if (kSmall) {
    expect_split_equals_whole(random_ddts({1, 131, 20, 37}, 0.1, 3), {0, 63, 131});
    return;
  }
  const DdtsInputs in = random_ddts({2, 200, 20, 37}, 0.1, 3);
  expect_split_equals_whole(in, {0, 1, 200});
  expect_split_equals_whole(in, {0, 63, 128, 200});
  expect_split_equals_whole(in, {0, 37, 38, 102, 199, 200});
}

TEST(DdtsInvariants, TokenByTokenEqualsChunked) {
  const int64_t T = kSmall ? 2 : 70;
  const DdtsInputs in = random_ddts({2, T, 20, 37}, 0.1, 5);
  std::vector<int64_t> cuts;
  for (int64_t t = 0; t <= T; ++t) cuts.push_back(t);
  expect_split_equals_whole(in, cuts);
}

TEST(DdtsInvariants, DocumentsEqualSeparateSequences) {
  // Starts inside and at the borders of sub-chunks (16) and chunks (64); documents of one token,
  // several in one chunk, and one that spans chunks.
  const std::vector<int64_t> cuts =
      kSmall ? std::vector<int64_t>{0, 5, 16, 17, 64, 70}
             : std::vector<int64_t>{0, 5, 16, 17, 40, 64, 65, 80, 81, 128, 130, 200, 260, 270};
  const int64_t T = cuts.back();
  DdtsInputs in = random_ddts({2, T, 20, 37}, 0.1, 9);
  in.starts.resize(2 * T);
  for (size_t i = 0; i + 1 < cuts.size(); ++i)
    for (int64_t t = cuts[i]; t < cuts[i + 1]; ++t)
      in.starts[t] = in.starts[T + t] = static_cast<int32_t>(cuts[i]);
  // These decays must not matter: if they did, the result would be NaN.
  for (int64_t t : cuts)
    if (t > 0 && t < T) in.g[t * 20 + 3] = std::numeric_limits<double>::quiet_NaN();
  const DdtsOutputs whole = run_ddts<float>(in, 2);

  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const bool first = i == 0, last = i + 2 == cuts.size();
    DdtsInputs document = tokens(in, cuts[i], cuts[i + 1]);
    document.starts.clear();
    if (!last) std::fill(document.dstate_out.begin(), document.dstate_out.end(), 0.0);
    if (!first) {
      std::fill(document.state_in.begin(), document.state_in.end(), 0.0);
      document.g[3] = -1;
    }
    const DdtsOutputs alone = run_ddts<float>(document, 1, /*null_state=*/!first);
    expect_tokens(alone, whole, in.dims, cuts[i], cuts[i + 1]);
    if (first) {
      EXPECT_TRUE(close(whole.dstate_in, alone.dstate_in, kTolerance));
    }
    if (last) {
      EXPECT_TRUE(close(whole.state_out, alone.state_out, kTolerance));
    }
  }
}

template <class T>
void expect_same_bits(const DdtsInputs& in) {
  const DdtsOutputs one = run_ddts<T>(in, 1);
  for (const int threads : kSmall ? std::vector{7} : std::vector{2, 3, 7}) {
    const DdtsOutputs many = run_ddts<T>(in, threads);
    for (size_t i = 0; i < one.named().size(); ++i)
      EXPECT_TRUE(*one.named()[i].second == *many.named()[i].second)
          << one.named()[i].first << " differs between 1 and " << threads << " threads";
  }
}

TEST(DdtsInvariants, ThreadsDoNotChangeABit) {
  const std::vector<DdtsDims> problems =
      kSmall ? std::vector<DdtsDims>{{1, 70, 20, 150}}  // one or more wide blocks of columns
             : std::vector<DdtsDims>{{1, 300, 32, 700}, {3, 100, 64, 90}, {2, 1, 64, 700}};
  for (const DdtsDims dims : problems) {
    expect_same_bits<float>(random_ddts(dims, 0.1, 13));
    expect_same_bits<bf16>(random_ddts(dims, 0.1, 13));
  }
}

TEST(DdtsInvariants, NaNComesThrough) {
  const int64_t T = kSmall ? 70 : 150, K = 20, V = 37, t = kSmall ? 40 : 70;
  const DdtsInputs clean = random_ddts({1, T, K, V}, 0.1, 17);
  const auto run_with = [&](Doubles DdtsInputs::*member, int64_t index) {
    DdtsInputs in = clean;
    (in.*member)[index] = std::numeric_limits<double>::quiet_NaN();
    return run_ddts<float>(in, 2);
  };
  const DdtsOutputs of_v = run_with(&DdtsInputs::v, t * V + 3);
  EXPECT_TRUE(std::isnan(of_v.o[t * V + 3]));
  EXPECT_TRUE(std::isnan(of_v.o[(T - 1) * V + 3]));
  EXPECT_FALSE(std::isnan(of_v.o[t * V + 4]));
  EXPECT_FALSE(std::isnan(of_v.o[3]));
  EXPECT_TRUE(std::isnan(of_v.dk[t * K]));
  const DdtsOutputs of_q = run_with(&DdtsInputs::q, t * K + 3);
  EXPECT_TRUE(std::isnan(of_q.o[t * V]));
  EXPECT_FALSE(std::isnan(of_q.o[(t + 1) * V]));
  const DdtsOutputs of_k = run_with(&DdtsInputs::k, t * K + 3);
  EXPECT_TRUE(std::isnan(of_k.o[(T - 1) * V]));
  const DdtsOutputs of_g = run_with(&DdtsInputs::g, t * K + 3);
  EXPECT_TRUE(std::isnan(of_g.o[(T - 1) * V]));
  EXPECT_TRUE(std::isnan(of_g.dg[t * K + 3]));
  const DdtsOutputs of_d_o = run_with(&DdtsInputs::d_o, t * V + 3);
  EXPECT_TRUE(std::isnan(of_d_o.dq[t * K]));
  EXPECT_TRUE(std::isnan(of_d_o.dv[3]));
}

TEST(DdtsInvariants, ExtremeDecaysStayExact) {
  const int64_t T = kSmall ? 70 : 130;
  DdtsInputs in = random_ddts({1, T, 20, 37}, 0.1, 19);
  for (size_t i = 0; i < in.g.size(); ++i)
    if (i % 3 == 0) in.g[i] = i % 2 == 0 ? -5000 : -40;
  expect_split_equals_whole(in, {0, 37, T});
  DdtsOutputs want = reference_ddts(in), got = run_ddts<float>(in);
  for (size_t i = 0; i < got.named().size(); ++i)
    EXPECT_TRUE(close(*got.named()[i].second, *want.named()[i].second, kTolerance))
        << got.named()[i].first;

  // Every decay is strong, so every dg is tiny, but it must still be right.
  for (double& g : in.g) g = -30 + 0.25 * g;
  for (size_t i = 0; i < in.g.size(); ++i) in.g[i] = std::max(in.g[i], -45.0);
  want = reference_ddts(in), got = run_ddts<float>(in);
  EXPECT_TRUE(close(got.dg, want.dg, 1e-5));  // exp(g) alone: |g| units of relative error

  // exp(-inf) = 0 forgets everything, without NaN.
  for (int64_t c = 0; c < 20; ++c) in.g[50 * 20 + c] = -std::numeric_limits<double>::infinity();
  expect_split_equals_whole(in, {0, 50, T});
}

TEST(DdtsInvariants, StateMayBeUpdatedInPlace) {
  for (const int64_t T : {1, 70}) {
    const DdtsInputs in = random_ddts({2, T, 20, 37}, 0.1, 21);
    const Array<float> q(cast<float>(in.q)), k(cast<float>(in.k)), v(cast<float>(in.v)),
        g(cast<float>(in.g));
    Array<float> state(cast<float>(in.state_in)), o(v.size());
    Backend exec = ddts_backend(2);
    DdtsForwardArgs<float> args{.dims = in.dims,
                                .q = q.data(),
                                .k = k.data(),
                                .v = v.data(),
                                .g = g.data(),
                                .state_in = state.data(),
                                .o = o.data(),
                                .state_out = state.data()};
    ddts_forward(exec, args);
    const DdtsOutputs want = run_ddts<float>(in);
    EXPECT_EQ(to_double(state), want.state_out);
    EXPECT_EQ(to_double(o), want.o);
    // Neither state is needed.
    args.state_in = args.state_out = nullptr;
    ddts_forward(exec, args);
    EXPECT_TRUE(close(to_double(o), run_ddts<float>(in, 1, true).o, kTolerance));
  }
}

TEST(DdtsInvariants, BadSizesAreRefused) {
  Backend exec = backend();
  const auto forward = [&](DdtsDims dims) {
    DdtsForwardArgs<float> args{};
    args.dims = dims;
    ddts_forward(exec, args);
  };
  EXPECT_THROW(forward({1, 0, 4, 4}), Error);
  if (kDevice == Device::cuda) {
    EXPECT_THROW(forward({1, 1, 129, 4}), Error);
  }
}

}  // namespace
}  // namespace rodimus::testing
