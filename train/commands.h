// The sub-commands of `rodimus`. Each function adds one to the application, with its options, help
// and a callback that does the work and throws Error.
#pragma once

namespace CLI {
class App;
}

namespace rodimus {

void add_tokenize_command(CLI::App& app);

}  // namespace rodimus
