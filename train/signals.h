// SIGTERM, SIGINT and SIGUSR1 ask a run to save and leave with exit code 0. Polled at every step,
// micro-batch of an evaluation, chunk of a prompt and generated token. A second SIGINT ends the
// process at once.
#pragma once

namespace rodimus {

void install_stop_signals();
bool stop_requested();

}  // namespace rodimus
