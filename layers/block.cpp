#include "layers/block.h"

#include <cmath>

namespace rodimus {

Init residual_init(const ModelConfig& config, int branches) {
  const double n = branches * static_cast<double>(config.n_layers);
  return {Init::Kind::normal, 0.02, std::sqrt(n)};
}

}  // namespace rodimus
