#include "data/validation_split.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "base/checksum.h"

namespace rodimus {
namespace {

constexpr uint64_t kValidationStream = 1;

// The position in [low, high] nearest to `wanted` that follows `mark`; npos if there is none.
size_t nearest_after(const std::string& text, char mark, size_t wanted, size_t low, size_t high) {
  size_t before = text.rfind(mark, wanted - 1);
  size_t after = text.find(mark, wanted);
  before = before == std::string::npos || before + 1 < low ? std::string::npos : before + 1;
  after = after == std::string::npos || after + 1 > high ? std::string::npos : after + 1;
  if (before == std::string::npos || after == std::string::npos) return std::min(before, after);
  return wanted - before <= after - wanted ? before : after;
}

}  // namespace

double unit_hash(uint64_t seed, uint64_t index, uint64_t stream) {
  const uint64_t words[] = {seed, index, stream};
  return static_cast<double>(xxh64(std::as_bytes(std::span(words))) >> 11) * 0x1p-53;
}

bool in_validation(uint64_t index, uint64_t seed, double val_fraction) {
  return unit_hash(seed, index, kValidationStream) < val_fraction;
}

bool ValidationSplit::next(Document& document, bool& in_val) {
  const auto read_ahead = [this] {
    ahead_.emplace();
    if (!source_.next(*ahead_)) ahead_.reset();
  };
  if (tail_) {
    document = std::move(*std::exchange(tail_, std::nullopt));
    in_val = true;
    return true;
  }
  if (!std::exchange(started_, true)) read_ahead();
  if (!ahead_) return false;
  document = std::move(*ahead_);
  in_val = in_validation(document.index, seed_, val_fraction_);
  bytes_ += document.text.size();
  ++(in_val ? val_documents_ : train_documents_);
  read_ahead();
  const bool one_is_empty = train_documents_ == 0 || val_documents_ == 0;
  if (!ahead_ && val_fraction_ > 0 && one_is_empty) cut_last(document, in_val);
  return true;
}

// Leaves the document unchanged if no part can be cut off.
void ValidationSplit::cut_last(Document& document, bool& in_val) {
  const std::string& text = document.text;
  const auto size = static_cast<double>(text.size());
  // The fraction of all text, but not much more than half of this document.
  const double share =
      std::min(val_fraction_ * static_cast<double>(bytes_), std::max(val_fraction_, 0.5) * size);
  constexpr const char* kWhite = " \t\r\n";
  const size_t first = text.find_first_not_of(kWhite), last = text.find_last_not_of(kWhite);
  if (share < 1 || first >= last) return;
  // Neither part may be blank.
  const size_t low = first + 1, high = last;
  const size_t wanted = std::clamp(text.size() - static_cast<size_t>(share), low, high);
  // If one line is most of the text, the cut is within it.
  const auto most = static_cast<size_t>(std::max(2 * share, size / 2));
  const size_t lowest = std::max(low, text.size() - std::min(most, text.size()));
  ValidationCut cut{.document = document.index, .at = "a line end"};
  size_t at = nearest_after(text, '\n', wanted, lowest, high);
  if (at == std::string::npos) {
    at = nearest_after(text, ' ', wanted, lowest, high);
    cut.at = "a space";
  }
  if (at == std::string::npos) {
    at = wanted;
    while (at < high && (static_cast<uint8_t>(text[at]) & 0xc0) == 0x80) ++at;
    // The document is a single character.
    if ((static_cast<uint8_t>(text[at]) & 0xc0) == 0x80) return;
    cut.at = "a character";
  }
  cut.train_bytes = at;
  cut.val_bytes = text.size() - at;
  tail_ = Document{.text = text.substr(at), .index = document.index};
  document.text.resize(at);
  in_val = false;
  cut_ = std::move(cut);
}

}  // namespace rodimus
