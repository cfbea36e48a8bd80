#include "train/mpi_session.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>

namespace rodimus {

void with_communicator(const std::function<void(Communicator&)>& body) {
  const std::unique_ptr<Communicator> communicator =
      launched_by_mpi() ? make_mpi(nullptr, nullptr) : make_single();
  try {
    body(*communicator);
  } catch (const SharedError&) {
    if (communicator->rank() == 0) throw;
    throw CLI::RuntimeError(1);  // rank 0 speaks for all
  } catch (const std::exception& error) {
    if (communicator->world_size() == 1) throw;
    fmt::print(stderr, "rodimus: error: rank {}: {}\n", communicator->rank(), error.what());
    std::fflush(stderr);
    communicator->abort(1);
  }
}

}  // namespace rodimus
