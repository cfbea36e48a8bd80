#include <algorithm>
#include <array>

#include "kernels/philox.h"
#include "train/inference/sampling.h"
#include "train/report/bench.h"

namespace rodimus {
namespace {

int32_t next_token(Context& ctx, Model& model, ModelState& state, int32_t token) {
  const Tensor ids = to_device(ctx.exec, {&token, 1}, {1, 1});
  const Tensor logits = on_host(ctx.exec, model.next_logits(ctx, ids, state));
  const Profile::Scope scope(ctx.profile, {"sample", {0, bytes_of(logits)}}, Profile::Phase::step);
  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  return sample_token({logits.data<float>(), vocab}, {.temperature = 0}, 0);
}

double bytes_of(const ModelState& state) {
  double sum = 0;
  for (const BlockState& block : state.blocks)
    sum += rodimus::bytes_of(block.conv_history, block.memory, block.keys, block.values);
  return sum;
}

// What generating a token must read: all weights, except that of an untied embedding it reads only
// one row.
double weight_bytes(Model& model, DType compute) {
  const ModelConfig& config = model.config();
  const int64_t unread = config.tied ? 0 : config.vocab_size * config.d_model;
  return static_cast<double>(size_of(compute)) *
         static_cast<double>(model.parameters().count() - unread);
}

Tensor made_up(Context& ctx, Shape shape, uint64_t stream) {
  Tensor x = Tensor::empty(std::move(shape), DType::f32, ctx.device());
  on_device(ctx.exec, [&](auto& exec) {
    random_normal(exec, x.data<float>(), x.numel(), 1, /*seed=*/1, stream);
  });
  return convert_to(ctx.exec, x, ctx.compute);
}

}  // namespace

ModelState state_at(Context& ctx, Model& model, int64_t position) {
  const ModelConfig& config = model.config();
  ModelState state;
  next_token(ctx, model, state, 0);
  state.position = position;
  const int64_t past = config.left() < 0 ? position : std::min(position, config.left());
  uint64_t stream = 0;
  for (BlockState& block : state.blocks) {
    if (!block.keys.defined()) continue;
    const Tensor &keys = block.keys, &values = block.values;
    block.keys = made_up(ctx, {past, keys.dim(1), keys.dim(2)}, stream++);
    block.values = made_up(ctx, {past, values.dim(1), values.dim(2)}, stream++);
    block.cached = past;
  }
  return state;
}

DecodeBench bench_decode(Context& ctx, Model& model, const BenchOptions& options,
                         const MachineRates& rates) {
  DecodeBench result;
  result.weight_bytes_per_token = weight_bytes(model, ctx.compute);
  result.limit_s = result.weight_bytes_per_token / (rates.triad * 1e9);
  for (const int64_t position : {1024, 65536}) {
    ModelState state = state_at(ctx, model, position);
    int32_t token = 0;
    for (int64_t i = 0; i < options.warmup; ++i) token = next_token(ctx, model, state, token);
    const Measured measured =
        measure(ctx, options.steps, [&] { token = next_token(ctx, model, state, token); });
    result.positions.push_back(
        {.position = position,
         .token_s = measured.seconds,
         .state_bytes = bytes_of(state),
         .ops = table_of(measured.profile, rates.gemm(ctx.compute), rates.triad)});
  }
  return result;
}

}  // namespace rodimus
