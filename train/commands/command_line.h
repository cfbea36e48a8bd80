// The command line as a whole: parsing, help, and how errors end the program. main() is one call.
#pragma once

#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "train/commands/command.h"

namespace rodimus {

// The command line is wrong: what() is one line that names the nearest known command or flag.
class UsageError : public Error {
  using Error::Error;
};

// `version` is what --version prints. Parses argv with the given commands and runs the one it
// names. Returns the exit code: 0 done; 1 the command threw (one line "rodimus: error: ..." on
// err); 2 the command line is wrong (the same). Under MPI all ranks parse the same command line, so
// only rank 0 prints about it.
int run_command_line(int argc, const char* const* argv, std::span<const AddCommand> commands,
                     const std::string& version, std::ostream& out, std::ostream& err);

// The same without the program's end: `arguments` are those after the program's name; what --help
// and --version print goes to `out`. Throws UsageError and whatever the command throws.
void parse_and_run(const std::vector<std::string>& arguments, std::span<const AddCommand> commands,
                   const std::string& version, std::ostream& out);

// "rodimus: error: <message>" as one line, flushed.
void print_error(std::ostream& err, const std::string& message);

}  // namespace rodimus
