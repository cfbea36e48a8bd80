// Text helpers for one-line messages, above all suggestions for misspelt names: configuration keys,
// commands, flags.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rodimus {

// Fewest insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`
// (restricted Damerau-Levenshtein), ignoring case.
size_t edit_distance(std::string_view a, std::string_view b);

// The candidate closest to `word`, the first one on a tie; "" when none is close enough to be what
// was meant (more than a third of the longer word would have to change).
std::string nearest(std::string_view word, std::span<const std::string> candidates);

// Drops trailing line breaks and turns others into spaces, because errors are one line whatever
// they quote.
std::string one_line(std::string text);

// The same, with "..." for what follows the first 60 characters: to quote a value in an error.
std::string shortened(const std::string& text);

// "a", "a or b", "a, b or c".
std::string join_or(std::span<const std::string> words);

}  // namespace rodimus
