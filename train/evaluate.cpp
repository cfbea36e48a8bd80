#include "train/evaluate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "train/run_data.h"
#include "train/signals.h"

namespace rodimus {
namespace {

void add_losses(EvalResult& result, Exec& exec, const Tensor& losses, const int32_t* targets,
                const std::vector<int32_t>& token_bytes) {
  const Tensor known = on_host(exec, losses);
  const float* loss = known.data<float>();
  for (int64_t i = 0; i < losses.numel(); ++i) {
    result.nats += static_cast<double>(loss[i]);
    if (!token_bytes.empty()) result.bytes += token_bytes.at(static_cast<size_t>(targets[i]));
  }
  result.tokens += losses.numel();
}

EvalResult sum_over_ranks(const EvalResult& mine, Communicator& communicator) {
  // Counts below 2^53 are exact in double.
  std::array<double, 3> sums{mine.nats, static_cast<double>(mine.tokens),
                             static_cast<double>(mine.bytes)};
  communicator.all_reduce_sum(std::span<double>(sums));
  if (sums[1] == 0)
    throw SharedError("evaluation: there is nothing to predict; the data needs two tokens or more");
  return {sums[0], static_cast<int64_t>(sums[1]), static_cast<int64_t>(sums[2])};
}

bool anyone_stopped(Communicator& communicator) {
  std::array<int64_t, 1> stop{stop_requested() ? 1 : 0};
  communicator.all_reduce_max(std::span<int64_t>(stop));
  return stop[0] != 0;
}

}  // namespace

double EvalResult::perplexity() const { return std::exp(loss()); }
double EvalResult::bits_per_token() const { return loss() / std::numbers::ln2; }
double EvalResult::bits_per_byte() const {
  return bytes > 0 ? nats / std::numbers::ln2 / static_cast<double>(bytes)
                   : std::numeric_limits<double>::quiet_NaN();
}

std::optional<EvalResult> evaluate_windows(Model& model, Context& ctx, const Dataset& data,
                                           const EvalOptions& options, Communicator& communicator) {
  const int64_t T = data.seq_len(), B = options.micro_batch, world = communicator.world_size();
  int64_t total = static_cast<int64_t>(data.windows());
  if (options.limit > 0) total = std::min(total, options.limit);
  EvalResult mine;
  std::vector<int32_t> window(static_cast<size_t>(T + 1));
  // All ranks take part in every round, also with nothing to do, because a stop is agreed in each.
  for (int64_t round = 0; round * world * B < total; ++round) {
    if (anyone_stopped(communicator)) return std::nullopt;
    const int64_t first = (round * world + communicator.rank()) * B,
                  count = std::min(B, total - first);
    if (count <= 0) continue;
    Batch batch;
    batch.B = count;
    batch.T = T;
    if (options.reset_documents) batch.starts.resize(static_cast<size_t>(count * T));
    for (int64_t b = 0; b < count; ++b) {
      data.read(static_cast<uint64_t>(first + b), window.data(),
                options.reset_documents ? batch.starts.data() + b * T : nullptr);
      batch.inputs.insert(batch.inputs.end(), window.begin(), window.end() - 1);
      batch.targets.insert(batch.targets.end(), window.begin() + 1, window.end());
    }
    const BatchTensors tensors = to_tensors(ctx.exec, batch);
    add_losses(mine, ctx.exec,
               model.losses(ctx, tensors.inputs, tensors.targets, tensors.starts, 0),
               batch.targets.data(), options.token_bytes);
  }
  return sum_over_ranks(mine, communicator);
}

std::optional<EvalResult> evaluate_documents(Model& model, Context& ctx, const Dataset& data,
                                             int64_t chunk, const EvalOptions& options,
                                             Communicator& communicator) {
  const int64_t world = communicator.world_size();
  int64_t total = data.documents();
  if (options.limit > 0) total = std::min(total, options.limit);
  EvalResult mine;
  for (int64_t round = 0; round * world < total; ++round) {
    if (anyone_stopped(communicator)) return std::nullopt;
    const int64_t index = round * world + communicator.rank();
    if (index >= total) continue;
    const std::vector<int32_t> document = data.document(index);
    const int64_t predictions = static_cast<int64_t>(document.size()) - 1;
    ModelState state;
    for (int64_t begin = 0; begin < predictions; begin += chunk) {
      const int64_t count = std::min(chunk, predictions - begin);
      const auto at = document.begin() + begin;
      const Tensor ids = to_device(ctx.exec, {at, at + count}, {1, count}),
                   next = to_device(ctx.exec, {at + 1, at + 1 + count}, {1, count});
      add_losses(mine, ctx.exec, model.losses(ctx, ids, next, state), &*(at + 1),
                 options.token_bytes);
    }
  }
  return sum_over_ranks(mine, communicator);
}

}  // namespace rodimus
