// `rodimus`: the list of commands. What each does is in its own file.
#include <array>
#include <iostream>

#include "train/cli.h"
#include "train/commands.h"

int main(int argc, char** argv) {
  constexpr std::array<rodimus::AddCommand, 7> kCommands = {
      rodimus::add_tokenize_command, rodimus::add_train_command,   rodimus::add_eval_command,
      rodimus::add_generate_command, rodimus::add_inspect_command, rodimus::add_bench_command,
      rodimus::add_plan_command};
  return rodimus::run_command_line(argc, argv, kCommands, std::cout, std::cerr);
}
