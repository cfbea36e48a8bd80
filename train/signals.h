// SIGTERM, SIGINT and SIGUSR1 ask a run to save and leave with exit code 0. Polled at every step,
// micro-batch of an evaluation, chunk of a prompt and generated token. A second SIGINT ends the
// process at once.
#pragma once

#include "dist/communicator.h"

namespace rodimus {

// What a collective throws on every rank when a signal came in it: the work is not complete.
class StoppedBySignal : public SharedError {
 public:
  using SharedError::SharedError;
};

void install_stop_signals();
bool stop_requested();

}  // namespace rodimus
