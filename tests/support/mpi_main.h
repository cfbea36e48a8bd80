// For tests that run on several ranks: the communicator that tests/support/mpi_main.cpp made.
#pragma once

#include "dist/communicator.h"

namespace rodimus::testing {

Communicator& world();

}  // namespace rodimus::testing
