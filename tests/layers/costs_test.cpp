// The costs that are planned with are those that the ops state when a step really runs.
#include "layers/costs.h"

#include <gtest/gtest.h>

#include <map>
#include <tuple>

#include "layers/blocks.h"
#include "layers/model.h"

namespace rodimus {
namespace {

struct Total {
  int64_t calls = 0;  // of forward
  double flop = 0, bytes = 0;
};
using Totals = std::map<std::string, Total>;

Tensor some_tokens(int64_t B, int64_t T, int64_t vocab) {
  Tensor ids = Tensor::empty({B, T}, DType::i32);
  for (int64_t i = 0; i < B * T; ++i)
    ids.data<int32_t>()[i] = static_cast<int32_t>(i * 7919 % vocab);
  return ids;
}

using Phase = Profile::Phase;

// What a step states in the phases that `counts` picks.
Totals run(const ModelConfig& config, DType compute, int64_t B, int64_t T, bool recompute,
           bool (*counts)(Phase)) {
  Context ctx{.exec = Cpu{1}, .compute = compute};
  Model model(config, ctx.exec, compute, /*grads=*/true);
  initialize(ctx.exec, model.parameters(), 1);
  Profile profile;
  Tape tape;
  ctx.tape = &tape;
  ctx.profile = &profile;
  const Tensor ids = some_tokens(B, T, config.vocab_size);
  profile.start();
  (void)model.losses(ctx, ids, ids, {}, 1, recompute);
  tape.backward(ctx, {});
  profile.stop();
  Totals totals;
  for (const Profile::Row& row : profile.rows()) {
    if (row.op.name == "unaccounted" || row.op.name == "gradient add" || !counts(row.phase))
      continue;
    Total& total = totals[label_of(row.op)];
    if (row.phase != Phase::backward) total.calls += row.calls;
    total.flop += row.cost.flop;
    total.bytes += row.cost.bytes;
  }
  return totals;
}

Totals planned(const ModelConfig& config, DType compute, int64_t B, int64_t T) {
  Totals totals;
  for (const auto& [op, calls, again] : micro_batch_costs(config, compute, B, T)) {
    const double n = static_cast<double>(calls);
    Total& total = totals[label_of(op)];
    total.calls += calls;
    total.flop += n * (op.forward.flop + op.backward.flop);
    total.bytes += n * (op.forward.bytes + op.backward.bytes);
  }
  return totals;
}

Totals planned_again(const ModelConfig& config, DType compute, int64_t B, int64_t T) {
  Totals totals;
  for (const auto& [op, calls, again] : micro_batch_costs(config, compute, B, T)) {
    if (again == 0) continue;
    const double n = static_cast<double>(again);
    Total& total = totals[label_of(op)];
    total.calls += again;
    total.flop += n * op.forward.flop;
    total.bytes += n * op.forward.bytes;
  }
  return totals;
}

void expect_same(const Totals& got, const Totals& want) {
  EXPECT_EQ(got.size(), want.size());
  for (const auto& [label, total] : want) {
    SCOPED_TRACE(label);
    ASSERT_TRUE(got.contains(label));
    const Total& other = got.at(label);
    EXPECT_EQ(other.calls, total.calls);
    EXPECT_DOUBLE_EQ(other.flop, total.flop);  // sums of whole numbers below 2^53
    EXPECT_DOUBLE_EQ(other.bytes, total.bytes);
  }
}

TEST(MicroBatchCosts, AreWhatARunStates) {
  for (const std::string& block : block_names()) {
    for (const DType compute : {DType::f32, DType::bf16}) {
      for (const auto& [heads_k, heads_v, window, tied] :
           {std::tuple{1, 0, 20, true}, std::tuple{2, 1, 0, false}}) {
        ModelConfig config;
        config.block = block;
        config.vocab_size = 101;
        config.d_model = 24;
        config.n_layers = 3;
        config.n_heads = 4;
        config.n_heads_k = heads_k;
        config.n_heads_v = heads_v;
        config.window = window;
        config.mem_size = 16;
        config.tied = tied;
        SCOPED_TRACE(testing::Message()
                     << (config.block + " ") << name_of(compute) << " window " << window);
        const Totals got = planned(config, compute, 2, 70);
        expect_same(got,
                    run(config, compute, 2, 70, /*recompute=*/false, [](Phase) { return true; }));
        expect_same(planned_again(config, compute, 2, 70),
                    run(config, compute, 2, 70, /*recompute=*/true,
                        [](Phase phase) { return phase == Phase::recomputed; }));
        double flop = 0;
        for (const auto& [label, total] : got) flop += total.flop;
        EXPECT_NEAR(flop, 3 * 140 * forward_flops_per_token(config, 70), 1e-9 * flop);
      }
    }
  }
}

}  // namespace
}  // namespace rodimus
