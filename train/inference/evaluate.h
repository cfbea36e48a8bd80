// Perplexity on held-out shards, computed by all ranks; independent of their number up to the order
// of a sum in double.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "dist/communicator.h"
#include "layers/model.h"
#include "train/inference/document_start.h"
#include "train/inference/text_counts.h"

namespace rodimus {

// Where a count of bytes or words comes from: the text of the shards (their NAME.json), the text of
// the scored tokens, or an estimate in proportion to the scored tokens.
enum class CountFrom { nothing, text, tokenizer, estimate };
const char* name_of(CountFrom from);  // "text", ...; nothing: null

struct EvalResult {
  double nats = 0;          // summed negative log likelihood
  int64_t tokens = 0;       // scored
  int64_t predictable = 0;  // tokens that could have been scored
  // Size of the original text of the scored tokens; 0 = unknown.
  int64_t bytes = 0, words = 0;
  CountFrom bytes_from = CountFrom::nothing, words_from = CountFrom::nothing;
  double loss() const { return nats / static_cast<double>(tokens); }
  double perplexity() const;
  double bits_per_token() const;
  double bits_per_byte() const;        // NaN if bytes are unknown
  double perplexity_per_word() const;  // NaN if words are unknown
};
// "691 of 700 predictable tokens scored", and the figures per byte and word, or why there is none.
std::string describe_scored(const EvalResult& result);
std::string describe_text_figures(const EvalResult& result);

struct EvalOptions {
  int64_t micro_batch = 1;                // windows per forward pass and rank
  int64_t limit = 0;                      // maximum number of windows or documents; 0 = all
  bool reset_documents = false;           // windows only; as in training
  std::vector<int32_t> token_bytes = {};  // by token, or empty
  TextCounts text = {};                   // of the dataset
  DocumentStart start = {};               // documents only
};

// Scores windows of T + 1 tokens with stride T, each from an empty state, as in training, and the
// remainder of each shard as a shorter window. nullopt if a stop signal came, on all ranks.
std::optional<EvalResult> evaluate_windows(Model& model, Context& ctx, const Dataset& data,
                                           const EvalOptions& options, Communicator& communicator);

// Scores whole documents, preceded by options.start, carrying the recurrent state from the first to
// the last token, in pieces of `chunk` tokens.
std::optional<EvalResult> evaluate_documents(Model& model, Context& ctx, const Dataset& data,
                                             int64_t chunk, const EvalOptions& options,
                                             Communicator& communicator);

}  // namespace rodimus
