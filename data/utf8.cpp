#include "data/utf8.h"

#include <cstring>

namespace rodimus {

size_t utf8_length(std::string_view text) {
  if (text.empty()) return kIncomplete;
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  // After some lead bytes the second byte has a narrower range, which excludes overlong forms,
  // surrogates and values above U+10FFFF.
  const uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return kIncomplete;
    if (byte(i) < (i == 1 ? low : 0x80) || byte(i) > (i == 1 ? high : 0xbf)) return 0;
  }
  return length;
}

size_t find_invalid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    // Eight ASCII bytes at a time, because most text is ASCII.
    uint64_t word;
    if (i + sizeof word <= text.size()) {
      std::memcpy(&word, text.data() + i, sizeof word);
      if ((word & 0x8080808080808080) == 0) {
        i += sizeof word;
        continue;
      }
    }
    const size_t length = utf8_length(text.substr(i, 4));
    if (length == 0 || length == kIncomplete) return i;
    i += length;
  }
  return std::string_view::npos;
}

int64_t count_words(std::string_view text) {
  int64_t words = 0;
  bool before = true;  // whether the previous byte is white space
  for (const char c : text) {
    const bool white = c == ' ' || (c >= '\t' && c <= '\r');
    words += before && !white;
    before = white;
  }
  return words;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  for (;;) {
    const size_t bad = find_invalid_utf8(text);
    out += text.substr(0, bad);
    if (bad == std::string_view::npos) return out;
    out += "\xef\xbf\xbd";
    text.remove_prefix(bad + 1);
  }
}

}  // namespace rodimus
