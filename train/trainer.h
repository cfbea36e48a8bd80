// The training loop.
#pragma once

#include <string>

#include "dist/communicator.h"
#include "train/config.h"

namespace rodimus {

struct TrainOptions {
  std::string resume = "auto";  // "auto", "none" or a path: see train/resume.h
  bool other_data = false;      // go on although data.train has changed since the checkpoint
};

// Trains to config.run.steps, or until a stop signal came, which saves and returns as well. Every
// rank calls it. Throws the same Error on all ranks for what is found during set-up and in
// collectives' agreement; an Error of one rank alone (damaged data met in the middle) leaves the
// others waiting: main() ends the job then.
void train(Config config, const TrainOptions& options, Communicator& communicator);

}  // namespace rodimus
