// SIGTERM, SIGINT and SIGUSR1 ask a run to save and exit with code 0. Polled at every step,
// micro-batch of an evaluation, chunk of a prompt and generated token. A second SIGINT ends the
// process at once.
#pragma once

#include "dist/communicator.h"

namespace rodimus {

// Thrown on every rank by a collective operation that a signal interrupted: its work is not
// complete.
class StoppedBySignal : public SharedError {
 public:
  using SharedError::SharedError;
};

void install_stop_signals();
bool stop_requested();

}  // namespace rodimus
