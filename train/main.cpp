// `rodimus`. The list of commands is in train/commands.h; what each does is in its own file.
#include <iostream>

#include "train/cli.h"
#include "train/commands.h"

int main(int argc, char** argv) {
  return rodimus::run_command_line(argc, argv, rodimus::kCommands, std::cout, std::cerr);
}
