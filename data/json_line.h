// The text of one line of a JSONL file.
#pragma once

#include <string>

namespace rodimus {

struct JsonText {
  std::string text;
  std::string problem = {};         // e.g. "is not JSON": why the line yields no text
  bool unpaired_surrogate = false;  // the text has U+FFFD in place of half a character
};

// `line`, valid UTF-8, must be a JSON object whose `field` is a string.
JsonText json_text(const std::string& line, const std::string& field);

}  // namespace rodimus
