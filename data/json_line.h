// The text of one line of a JSONL file.
#pragma once

#include <string>

namespace rodimus {

struct JsonText {
  std::string text;
  std::string problem = {};         // "is not JSON": the line has no text to give
  bool unpaired_surrogate = false;  // the text has U+FFFD where the line has half of a character
};

// `line`, valid UTF-8, must be a JSON object whose `field` is a string.
JsonText json_text(const std::string& line, const std::string& field);

}  // namespace rodimus
