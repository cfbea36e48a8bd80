// UTF-8 as defined by RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace rodimus {

// Bytes of the character at the start of `text` (1-4); 0 when those bytes cannot begin one, and
// kIncomplete when they could but the text ends too early.
inline constexpr size_t kIncomplete = static_cast<size_t>(-1);
size_t utf8_length(std::string_view text);

// Offset of the first byte that is not part of a valid character; npos if all are.
size_t find_invalid_utf8(std::string_view text);

// Words as counted by `wc -w` in the C locale: maximal runs without space, tab, newline, carriage
// return, vertical tab and form feed.
int64_t count_words(std::string_view text);

// The text with every byte that is not part of a valid character replaced by U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace rodimus
