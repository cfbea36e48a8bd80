// The frame around commands that run on several ranks.
#pragma once

#include <functional>
#include <string>

#include "dist/communicator.h"

namespace rodimus {

// Runs `body` with the communicator that fits how the process was started: MPI under a launcher,
// else a single rank. An error every rank agreed on (SharedError, see together()) is printed by
// rank 0 and ends each with exit code 1; an exception of this rank alone is printed and ends the
// whole job, because the others may be waiting for this rank.
void with_communicator(const std::function<void(Communicator&)>& body);

// For commands whose ranks would each do all of the work, on the same files: when a launcher
// started several processes, rank 0 says so in one line and every rank ends with exit code 1.
void require_single_process(const std::string& command);

}  // namespace rodimus
