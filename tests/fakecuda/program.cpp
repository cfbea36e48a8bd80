// main() of the whole program on the emulator, which the end-to-end tests run; that of
// train/main.cpp is compiled as rodimus_main(). RODIMUS_FAKE_STREAMS is the policy of the fake
// runtime: lazy (default), random or eager. What the emulator or the fake has to report at the end
// is printed, and the exit code is 86 then.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/fakecuda/work.h"
#include "tests/simt/emulator.h"

int rodimus_main(int argc, char** argv);

int main(int argc, char** argv) {
  constexpr int kReported = 86;
  const char* const streams = std::getenv("RODIMUS_FAKE_STREAMS");
  const std::string policy = streams ? streams : "lazy";
  using fakecuda::Policy;
  if (policy != "lazy" && policy != "random" && policy != "eager") {
    std::fprintf(stderr, "RODIMUS_FAKE_STREAMS=%s: expected lazy, random or eager\n", streams);
    return 2;
  }
  fakecuda::set_policy(policy == "lazy"     ? Policy::lazy
                       : policy == "random" ? Policy::random
                                            : Policy::eager);
  const int code = rodimus_main(argc, argv);
  fakecuda::finish_all();
  if (simt::reports().empty()) return code;
  std::fprintf(stderr, "%s\n", simt::report_text().c_str());
  return kReported;
}
