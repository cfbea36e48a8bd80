// The training loop.
#pragma once

#include "dist/communicator.h"
#include "train/config/config.h"
#include "train/run_start.h"

namespace rodimus {

// Resolves the configuration and trains to run.steps, or until a stop signal; either way it saves
// and returns. Every rank calls it. Errors during set-up, or that all ranks agree on, are thrown on
// every rank; an Error on one rank alone (damaged data found during training) leaves the others
// waiting, so main() ends the job.
void train(const Config& written, const StartOptions& options, Communicator& communicator);

}  // namespace rodimus
