// `rodimus`. The list of commands is in train/commands/commands.h; what each does is in its own
// file.
#include <iostream>

#include "train/commands/command_line.h"
#include "train/commands/commands.h"
#include "train/version.h"

int main(int argc, char** argv) {
  return rodimus::run_command_line(argc, argv, rodimus::kCommands, rodimus::version_text(),
                                   std::cout, std::cerr);
}
