// libFuzzer: any bytes as a configuration file, and as one --set override. Only Error may come out.
// Whatever is accepted must come back from its own printed form.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "train/config/config.h"

namespace {

void parse_and_print(const std::string& toml, const std::vector<std::string>& overrides) {
  std::string printed;
  try {
    printed = rodimus::to_toml(rodimus::parse_config(toml, "fuzz.toml", overrides));
  } catch (const rodimus::Error&) {
    return;
  }
  // An Error here ends the run as uncaught: checkpoints hold the printed form.
  if (rodimus::to_toml(rodimus::parse_config(printed, "printed", {})) != printed) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  parse_and_print(text, {});
  parse_and_print("", {text});
  return 0;
}
