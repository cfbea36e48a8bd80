#include "train/signals.h"

#include <csignal>
#include <initializer_list>

namespace rodimus {
namespace {

volatile std::sig_atomic_t g_signal = 0;

void on_signal(int signal) {
  if (signal == SIGINT && g_signal == SIGINT) {
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);
  }
  g_signal = signal;
}

}  // namespace

void install_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit becomes an error of write(), like a full disk
}

bool stop_requested() { return g_signal != 0; }

}  // namespace rodimus
