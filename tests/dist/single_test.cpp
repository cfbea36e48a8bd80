#include <gtest/gtest.h>

#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "dist/communicator.h"
#include "tests/support/failure_of.h"

namespace rodimus {
namespace {

using testing::failure_of;

TEST(Single, CollectivesAreTheIdentity) {
  const auto single = make_single();
  EXPECT_EQ(single->rank(), 0);
  EXPECT_EQ(single->world_size(), 1);
  Exec exec = Cpu{};
  std::vector<float> x = {1, 2, 3};
  single->all_reduce_sum(exec, x.data(), 3);
  EXPECT_EQ(x, (std::vector<float>{1, 2, 3}));
  std::vector<double> y = {0.5};
  single->all_reduce_sum(y);
  EXPECT_EQ(y[0], 0.5);
  std::vector<int64_t> z = {-7};
  single->all_reduce_max(z);
  EXPECT_EQ(z[0], -7);
  single->barrier();
  EXPECT_EQ(broadcast_text(*single, "gate", 0), "gate");
  EXPECT_THROW(broadcast_text(*single, "gate", 1), Error);
}

TEST(Single, AGroupOfTheOneRankIsItself) {
  const auto single = make_single();
  const auto group = single->split(4, -2);
  EXPECT_EQ(group->rank(), 0);
  EXPECT_EQ(group->world_size(), 1);
  EXPECT_EQ(failure_of([&] { (void)single->split(-1, 0); }),
            "split: color = -1, expected 0 or more");
}

TEST(Single, TogetherPassesTheMessageOnUnprefixed) {
  const auto single = make_single();
  int runs = 0;
  together(*single, [&] { ++runs; });
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(failure_of([&] { together(*single, [] { fail("no file"); }); }), "no file");
  EXPECT_EQ(failure_of([&] { together(*single, [] { throw std::runtime_error("other"); }); }),
            "other");
  EXPECT_EQ(failure_of([&] { together(*single, [] { throw 5; }); }), "unknown exception");
  require_identical(*single, 123, "config");
}

TEST(Single, AbortEndsTheProcessWithTheCode) {
  const auto single = make_single();
  EXPECT_EXIT(single->abort(7), ::testing::ExitedWithCode(7), "");
}

TEST(LaunchedByMpi, ReadsTheEnvironment) {
  EXPECT_FALSE(launched_by_mpi());
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK"}) {
    setenv(name, "2", 1);
    EXPECT_TRUE(launched_by_mpi()) << name;
    unsetenv(name);
  }
  EXPECT_FALSE(launched_by_mpi());
}

}  // namespace
}  // namespace rodimus
