#include "train/version.h"

namespace rodimus {

std::string version_text() {
  return std::string("rodimus " RODIMUS_VERSION " (commit ") + commit() +
         ")\nfeatures: " RODIMUS_FEATURES;
}

}  // namespace rodimus
