// The order of training windows: a keyed bijection of [0, n) per epoch, computed and not stored, so
// shuffling a trillion tokens costs no memory and a resumed run needs no state but its sample
// index. It does not depend on the batch size or the number of ranks.
#pragma once

#include <array>
#include <cstdint>

namespace rodimus {

class Sampler {
 public:
  // n >= 1 windows. Without `shuffle` every epoch takes them in order.
  Sampler(uint64_t n, uint64_t seed, bool shuffle = true);

  // The window of global sample i = 0, 1, 2, ...: epoch i / n, place i % n.
  uint64_t window(uint64_t sample) const;

 private:
  uint64_t n_, seed_;
  int half_bits_;  // the Feistel network has 2 * half_bits_ bits, the smallest even width that
                   // holds n
  bool shuffle_;
};

}  // namespace rodimus
