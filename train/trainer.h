// The training loop.
#pragma once

#include "dist/communicator.h"
#include "train/config/config.h"
#include "train/run_start.h"

namespace rodimus {

// Trains as the configuration says, resolved here: to run.steps, or until a stop signal came, which
// saves and returns as well. Every rank calls it. Throws the same Error on all ranks for what is
// found during set-up and in collectives' agreement; an Error of one rank alone (damaged data met
// in the middle) leaves the others waiting: main() ends the job then.
void train(const Config& written, const StartOptions& options, Communicator& communicator);

}  // namespace rodimus
