// The command line as a whole: parsing, help, and how errors end the program. main() is one call.
#pragma once

#include <CLI/CLI.hpp>
#include <iosfwd>
#include <span>
#include <string>

namespace rodimus {

using AddCommand = void (*)(CLI::App& app);

// `version` is what --version prints. Parses argv with the given commands and runs the one it
// names. Returns the exit code: 0 done; 1 the command threw (one line "rodimus: error: ..." on
// err); 2 the command line is wrong (one line that names the nearest known command or flag). Under
// MPI all ranks parse the same command line, so only rank 0 prints about it.
int run_command_line(int argc, const char* const* argv, std::span<const AddCommand> commands,
                     const std::string& version, std::ostream& out, std::ostream& err);

// "rodimus: error: <message>" as one line, flushed.
void print_error(std::ostream& err, const std::string& message);

}  // namespace rodimus
