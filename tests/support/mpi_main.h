// For tests that run on several ranks: the communicator made by tests/support/mpi_main.cpp.
#pragma once

#include "dist/communicator.h"

namespace rodimus::testing {

Communicator& world();

}  // namespace rodimus::testing
