// Perplexity on held-out shards, spread over the ranks; the same on any number of them up to the
// order of a sum in double.
#pragma once

#include <optional>
#include <vector>

#include "data/dataset.h"
#include "dist/communicator.h"
#include "layers/model.h"

namespace rodimus {

struct EvalResult {
  double nats = 0;     // summed negative log likelihood
  int64_t tokens = 0;  // predicted
  int64_t bytes = 0;   // of text that those tokens stand for; 0 = unknown
  double loss() const { return nats / static_cast<double>(tokens); }
  double perplexity() const;
  double bits_per_token() const;
  double bits_per_byte() const;  // NaN when bytes are unknown
};

struct EvalOptions {
  int64_t micro_batch = 1;           // windows per forward pass and rank
  int64_t limit = 0;                 // windows or documents at most; 0 = all
  bool reset_documents = false;      // windows only: as in training
  std::vector<int32_t> token_bytes;  // by token, or empty
};

// Windows of T + 1 tokens with stride T, each from an empty state, as training sees them.
// Nothing when a stop signal came, agreed by all ranks.
std::optional<EvalResult> evaluate_windows(Model& model, Context& ctx, const Dataset& data,
                                           const EvalOptions& options, Communicator& communicator);

// Whole documents, the recurrent state carried from their first to their last token, in pieces of
// `chunk` tokens.
std::optional<EvalResult> evaluate_documents(Model& model, Context& ctx, const Dataset& data,
                                             int64_t chunk, const EvalOptions& options,
                                             Communicator& communicator);

}  // namespace rodimus
