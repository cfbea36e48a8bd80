// What a tokenizer does to a text that it does not give back.
#pragma once

#include <string>
#include <string_view>

namespace rodimus {

// The first difference with a little text around, quoted as in JSON: '"a  b" becomes "a b"'. The
// two differ.
std::string describe_change(std::string_view text, std::string_view decoded);

}  // namespace rodimus
