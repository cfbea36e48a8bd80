// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace rodimus {

// Bytes of the character at the start of `text` (1-4); 0 when those bytes cannot begin one, and
// npos-like kIncomplete when they could but the text ends before it does.
inline constexpr size_t kIncomplete = static_cast<size_t>(-1);
size_t utf8_length(std::string_view text);

// Offset of the first byte that belongs to no valid character; npos when all of it is valid.
size_t find_invalid_utf8(std::string_view text);

// Words as `wc -w` counts them in the C locale: longest runs without space, tab, newline, carriage
// return, vertical tab and form feed.
int64_t count_words(std::string_view text);

// The text with every byte that belongs to no valid character replaced by U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace rodimus
