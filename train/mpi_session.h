// The frame around commands that run on several ranks.
#pragma once

#include <functional>

#include "dist/communicator.h"

namespace rodimus {

// Runs `body` with the communicator that fits how the process was started: MPI under a launcher,
// else a single rank. What all ranks threw alike (SharedError, see together()) is printed by rank 0
// and ends each with exit code 1; an exception of this rank alone is printed and ends the whole
// job, because the others may be waiting for this rank.
void with_communicator(const std::function<void(Communicator&)>& body);

}  // namespace rodimus
