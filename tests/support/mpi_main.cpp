// main() of tests that run under mpirun, or without it as a single rank. Every rank runs every
// test; the program fails on all ranks if any test failed on any rank. Rank 0 reports as usual; the
// others report only their failures.
#include "tests/support/mpi_main.h"

#include <gtest/gtest.h>

#include <cstdio>

// For AddressSanitizer: memory that the libraries keep until the process ends.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libmpi\nleak:libopen-\nleak:libpmix\nleak:libhwloc\nleak:mca_\nleak:libhdf5";
}

namespace rodimus::testing {
namespace {

Communicator* world_instance = nullptr;

class FailurePrinter final : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", world().rank(),
                 result.file_name() != nullptr ? result.file_name() : "?", result.line_number(),
                 result.message());
  }
};

int run(int* argc, char** argv) {
  ::testing::InitGoogleTest(argc, argv);
  if (world().rank() != 0) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailurePrinter);
  }
  int64_t failed = RUN_ALL_TESTS();
  // A filter that matches nothing, or a file without tests, must not count as success.
  if (::testing::UnitTest::GetInstance()->test_to_run_count() == 0) failed = 1;
  world().all_reduce_max(std::span(&failed, 1));
  return failed != 0 ? 1 : 0;
}

}  // namespace

Communicator& world() { return *world_instance; }

}  // namespace rodimus::testing

int main(int argc, char** argv) {
  try {
    // A single rank needs no MPI, as in the program.
    const auto communicator =
        rodimus::launched_by_mpi() ? rodimus::make_mpi(&argc, &argv) : rodimus::make_single();
    rodimus::testing::world_instance = communicator.get();
    return rodimus::testing::run(&argc, argv);
  } catch (const rodimus::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
