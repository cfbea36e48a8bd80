// Describes how a tokenizer changes a text that it does not reproduce.
#pragma once

#include <string>
#include <string_view>

namespace rodimus {

// The first difference, with a little context, quoted as in JSON: '"a b" becomes "a b"'. The two
// texts must differ.
std::string describe_change(std::string_view text, std::string_view decoded);

}  // namespace rodimus
