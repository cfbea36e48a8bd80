// The sub-commands of `rodimus`. Each function adds one command with its options and --help text;
// the body runs once the command line is parsed. Errors are thrown; train/main.cpp prints them in
// one line and turns them into exit code 1.
#pragma once

#include <array>

#include "train/commands/command.h"

namespace rodimus {

void add_tokenize_command(CLI::App& app);
void add_train_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_import_command(CLI::App& app);
void add_export_command(CLI::App& app);

inline constexpr std::array<AddCommand, 9> kCommands = {
    add_tokenize_command, add_train_command,   add_eval_command,
    add_generate_command, add_inspect_command, add_bench_command,
    add_plan_command,     add_import_command,  add_export_command};

}  // namespace rodimus
