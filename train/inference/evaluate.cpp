#include "train/inference/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/head_loss.h"
#include "train/run_data.h"
#include "train/signals.h"

namespace rodimus {
namespace {

// The sums of one rank; added over ranks at the end.
struct Sums {
  double nats = 0;
  int64_t tokens = 0, bytes = 0;
};

// kIgnoreTarget marks a position without a token.
void add_losses(Sums& sums, Exec& exec, const Tensor& losses, const int32_t* targets,
                const std::vector<int32_t>& token_bytes) {
  const Tensor known = on_host(exec, losses);
  const float* loss = known.data<float>();
  for (int64_t i = 0; i < losses.numel(); ++i) {
    if (targets[i] == kIgnoreTarget) continue;
    sums.nats += static_cast<double>(loss[i]);
    if (!token_bytes.empty()) sums.bytes += token_bytes.at(static_cast<size_t>(targets[i]));
    ++sums.tokens;
  }
}

int64_t in_proportion(int64_t whole, int64_t part, int64_t of) {
  return std::llround(static_cast<double>(whole) * static_cast<double>(part) /
                      static_cast<double>(of));
}

EvalResult result_of(const Sums& mine, int64_t predictable, const Dataset& data,
                     const EvalOptions& options, Communicator& communicator) {
  // Counts below 2^53 are exact in double.
  std::array<double, 3> sums{mine.nats, static_cast<double>(mine.tokens),
                             static_cast<double>(mine.bytes)};
  communicator.all_reduce_sum(std::span<double>(sums));
  if (sums[1] == 0)
    throw SharedError("evaluation: there is nothing to predict; the data needs two tokens or more");
  EvalResult result{
      .nats = sums[0], .tokens = static_cast<int64_t>(sums[1]), .predictable = predictable};
  const TextCounts& text = options.text;
  const int64_t tokens = data.tokens();
  // Nothing precedes the first token of a shard, so it may be left out.
  const bool all = result.tokens + static_cast<int64_t>(data.shards().size()) >= tokens;
  if (all && text.bytes > 0) {
    result.bytes = text.bytes;
    result.bytes_from = CountFrom::text;
  } else if (text.lossless && sums[2] > 0) {
    result.bytes = static_cast<int64_t>(sums[2]);
    result.bytes_from = CountFrom::tokenizer;
  } else if (text.bytes > 0) {
    result.bytes = in_proportion(text.bytes, result.tokens, tokens);
    result.bytes_from = CountFrom::estimate;
  }
  if (text.words > 0) {
    result.words = all ? text.words : in_proportion(text.words, result.tokens, tokens);
    result.words_from = all ? CountFrom::text : CountFrom::estimate;
  }
  return result;
}

bool anyone_stopped(Communicator& communicator) {
  std::array<int64_t, 1> stop{stop_requested() ? 1 : 0};
  communicator.all_reduce_max(std::span<int64_t>(stop));
  return stop[0] != 0;
}

// Pieces [first, first + count), padded to the longest with positions without a token, which no
// earlier position sees.
Batch batch_of_pieces(const Dataset& data, int64_t first, int64_t count, bool starts) {
  Batch batch;
  batch.B = count;
  for (int64_t b = 0; b < count; ++b)
    batch.T = std::max(batch.T, data.piece(first + b).predictions);
  const auto size = static_cast<size_t>(count * batch.T);
  batch.inputs.resize(size);
  batch.targets.resize(size, kIgnoreTarget);
  if (starts) batch.starts.resize(size);
  std::vector<int32_t> tokens(static_cast<size_t>(batch.T + 1));
  for (int64_t b = 0; b < count; ++b) {
    const Dataset::Piece piece = data.piece(first + b);
    const auto n = static_cast<ptrdiff_t>(piece.predictions),
               at = static_cast<ptrdiff_t>(b * batch.T);
    data.read(piece, tokens.data(), starts ? batch.starts.data() + at : nullptr);
    std::copy_n(tokens.begin(), n, batch.inputs.begin() + at);
    std::copy_n(tokens.begin() + 1, n, batch.targets.begin() + at);
    for (ptrdiff_t t = n; starts && t < batch.T; ++t)
      batch.starts[static_cast<size_t>(at + t)] = batch.starts[static_cast<size_t>(at + n - 1)];
  }
  return batch;
}

// All tokens except those that begin a document with nothing before them.
int64_t predictable_in_documents(const Dataset& data, const DocumentStart& start) {
  int64_t total = 0;
  for (int64_t d = 0; d < data.documents(); ++d) {
    const bool put =
        start.put_before(start.may_be_there ? data.document(d, 1) : std::vector<int32_t>{});
    total += std::max<int64_t>(0, data.document_size(d) - (put ? 0 : 1));
  }
  return total;
}

}  // namespace

const char* name_of(CountFrom from) {
  switch (from) {
    case CountFrom::text:
      return "text";
    case CountFrom::tokenizer:
      return "tokenizer";
    case CountFrom::estimate:
      return "estimate";
    case CountFrom::nothing:
      break;
  }
  return nullptr;
}

double EvalResult::perplexity() const { return std::exp(loss()); }
double EvalResult::bits_per_token() const { return loss() / std::numbers::ln2; }
double EvalResult::bits_per_byte() const {
  return bytes > 0 ? nats / std::numbers::ln2 / static_cast<double>(bytes)
                   : std::numeric_limits<double>::quiet_NaN();
}
double EvalResult::perplexity_per_word() const {
  return words > 0 ? std::exp(nats / static_cast<double>(words))
                   : std::numeric_limits<double>::quiet_NaN();
}

std::string describe_scored(const EvalResult& result) {
  return fmt::format("{} of {} predictable tokens scored", result.tokens, result.predictable);
}

std::string describe_text_figures(const EvalResult& result) {
  const auto note = [](CountFrom from) {
    return from == CountFrom::estimate ? " (estimated in proportion to the scored tokens)" : "";
  };
  return fmt::format(
      "bits/byte {}{}, perplexity per word {}{}",
      result.bytes > 0 ? fmt::format("{:.5f}", result.bits_per_byte()) : "unknown",
      note(result.bytes_from),
      result.words > 0 ? fmt::format("{:.5g}", result.perplexity_per_word()) : "unknown",
      note(result.words_from));
}

std::optional<EvalResult> evaluate_windows(Model& model, Context& ctx, const Dataset& data,
                                           const EvalOptions& options, Communicator& communicator) {
  const int64_t B = options.micro_batch, world = communicator.world_size();
  int64_t total = data.pieces();
  if (options.limit > 0) total = std::min(total, options.limit);
  Sums mine;
  // All ranks take part in every round, even with nothing to do, because each round agrees on
  // whether to stop.
  for (int64_t round = 0; round * world * B < total; ++round) {
    if (anyone_stopped(communicator)) return std::nullopt;
    const int64_t first = (round * world + communicator.rank()) * B,
                  count = std::min(B, total - first);
    if (count <= 0) continue;
    const Batch batch = batch_of_pieces(data, first, count, options.reset_documents);
    const BatchTensors tensors = to_tensors(ctx.exec, batch);
    add_losses(mine, ctx.exec,
               model.losses(ctx, tensors.inputs, tensors.targets, tensors.starts, 0),
               batch.targets.data(), options.token_bytes);
  }
  return result_of(mine, data.predictable(), data, options, communicator);
}

std::optional<EvalResult> evaluate_documents(Model& model, Context& ctx, const Dataset& data,
                                             int64_t chunk, const EvalOptions& options,
                                             Communicator& communicator) {
  const int64_t world = communicator.world_size();
  int64_t total = data.documents();
  if (options.limit > 0) total = std::min(total, options.limit);
  Sums mine;
  for (int64_t round = 0; round * world < total; ++round) {
    if (anyone_stopped(communicator)) return std::nullopt;
    const int64_t index = round * world + communicator.rank();
    if (index >= total) continue;
    std::vector<int32_t> document = data.document(index);
    if (options.start.put_before(document)) document.insert(document.begin(), options.start.token);
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
  return result_of(mine, predictable_in_documents(data, options.start), data, options,
                   communicator);
}

}  // namespace rodimus
