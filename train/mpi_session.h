// The frame around commands that run on several ranks.
#pragma once

#include <functional>

#include "dist/communicator.h"

namespace rodimus {

// Runs `body` with the communicator that fits how the process was started: MPI under a launcher,
// else a single rank. An Error that all ranks share (see together()) is thrown on rank 0 and ends
// the others silently with exit code 1; one that is this rank's own is printed and ends the whole
// job, because the others may be waiting for this rank.
void with_communicator(const std::function<void(Communicator&)>& body);

}  // namespace rodimus
