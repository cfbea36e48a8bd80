// Words for one-line messages, first of all suggestions for misspelt names: keys of the
// configuration, commands, flags.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rodimus {

// Fewest insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`
// (restricted Damerau-Levenshtein), not counting upper and lower case.
size_t edit_distance(std::string_view a, std::string_view b);

// The candidate closest to `word`, the first one of equals; "" when none is close enough to be what
// was meant (more than a third of the longer word would have to change).
std::string nearest(std::string_view word, std::span<const std::string> candidates);

// Line breaks at the end dropped, others as spaces: errors are one line, whatever they quote.
std::string one_line(std::string text);

// "a", "a or b", "a, b or c".
std::string join_or(std::span<const std::string> words);

}  // namespace rodimus
