// Decides which documents are for validation: by a hash of the document's number. If that leaves
// val or train empty (with one document, or few), the last document is cut and its end becomes val.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/text_source.h"

namespace rodimus {

// Whether document `index` belongs to val: a pure function, uniform over documents.
bool in_validation(uint64_t index, uint64_t seed, double val_fraction);

// Uniform in [0, 1), a pure function of its arguments.
double unit_hash(uint64_t seed, uint64_t index, uint64_t stream);

// How the last document was cut.
struct ValidationCut {
  uint64_t document = 0;
  uint64_t train_bytes = 0, val_bytes = 0;
  std::string at = {};  // "a line end", "a space" or "a character"
};

// Reads a source to its end, looking ahead by one document.
class ValidationSplit {
 public:
  ValidationSplit(TextSource& source, double val_fraction, uint64_t seed)
      : source_(source), val_fraction_(val_fraction), seed_(seed) {}

  // False at the end. in_val: whether the document, or part of one, belongs to val.
  bool next(Document& document, bool& in_val);
  const std::optional<ValidationCut>& cut() const { return cut_; }      // valid at the end
  uint64_t given() const { return train_documents_ + val_documents_; }  // documents returned so far

 private:
  void cut_last(Document& document, bool& in_val);

  TextSource& source_;
  double val_fraction_;
  uint64_t seed_;
  bool started_ = false;
  std::optional<Document> ahead_;
  std::optional<Document> tail_;  // the end of the last document
  uint64_t bytes_ = 0, train_documents_ = 0, val_documents_ = 0;
  std::optional<ValidationCut> cut_;
};

}  // namespace rodimus
