#include "train/commands/mpi_session.h"

#include <iostream>

#include "train/commands/command.h"
#include "train/commands/command_line.h"

namespace rodimus {

void with_communicator(const std::function<void(Communicator&)>& body) {
  const std::unique_ptr<Communicator> communicator =
      launched_by_mpi() ? make_mpi(nullptr, nullptr) : make_single();
  try {
    body(*communicator);
  } catch (const SharedError& error) {
    if (communicator->rank() == 0) print_error(std::cerr, error.what());
    // The launcher kills all ranks as soon as one exits with an error, so wait until the line is
    // printed.
    communicator->barrier();
    throw ExitCode(1);
  } catch (const std::exception& error) {
    if (communicator->world_size() == 1) throw;
    print_error(std::cerr, concat("rank ", communicator->rank(), ": ", error.what()));
    communicator->abort(1);
  }
}

void require_single_process(const std::string& command) {
  if (ranks_by_launcher() <= 1) return;
  with_communicator([&](Communicator& communicator) {
    throw SharedError(concat("rodimus ", command, " does not share its work among ",
                             communicator.world_size(), " processes; start it without mpirun"));
  });
}

}  // namespace rodimus
