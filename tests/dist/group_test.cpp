// Groups of ranks: communicators made by split(), and ops that sum over a group. Runs on 1, 3 and 4
// ranks. Contributions are small integers, so sums are exact in any order.
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "autograd/group.h"
#include "autograd/tape.h"
#include "tests/support/failure_of.h"
#include "tests/support/mpi_main.h"

namespace rodimus {
namespace {

using testing::failure_of;
using testing::world;

int parity() { return world().rank() % 2; }

// Ranks of the world with this rank's parity, in order.
std::vector<int> own_group() {
  std::vector<int> ranks;
  for (int rank = parity(); rank < world().world_size(); rank += 2) ranks.push_back(rank);
  return ranks;
}

float sum_of_ranks(const std::vector<int>& ranks) {
  float sum = 0;
  for (const int rank : ranks) sum += static_cast<float>(rank + 1);
  return sum;
}

float sum_over(Group& group) {
  Exec exec = Cpu{1};
  auto x = static_cast<float>(world().rank() + 1);
  group.all_reduce_sum(exec, &x, 1);
  return x;
}

TEST(Split, RanksOfOneColorMakeAGroup) {
  const auto group = world().split(parity(), 0);
  const std::vector<int> ranks = own_group();
  EXPECT_EQ(group->world_size(), static_cast<int>(ranks.size()));
  EXPECT_EQ(ranks[static_cast<size_t>(group->rank())], world().rank());
  EXPECT_EQ(group->local_size(), group->world_size());  // mpirun started all ranks on this machine
  EXPECT_EQ(group->local_rank(), group->rank());
  EXPECT_EQ(sum_over(*group), sum_of_ranks(ranks));
}

TEST(Split, TheKeyOrdersTheRanks) {
  const auto reversed = world().split(0, -world().rank());
  EXPECT_EQ(reversed->world_size(), world().world_size());
  EXPECT_EQ(reversed->rank(), world().world_size() - 1 - world().rank());
  EXPECT_EQ(broadcast_text(*reversed, concat("rank ", world().rank()), 0),
            concat("rank ", world().world_size() - 1));
  const auto alike = world().split(3, 5);
  EXPECT_EQ(alike->rank(), world().rank());
}

TEST(Split, GroupsOfOneRank) {
  const auto alone = world().split(world().rank(), 0);
  EXPECT_EQ(alone->world_size(), 1);
  EXPECT_EQ(alone->rank(), 0);
  EXPECT_EQ(sum_over(*alone), sum_of_ranks({world().rank()}));
}

// The other group does nothing in the meantime.
TEST(Split, HostCollectivesStayInTheGroup) {
  const auto group = world().split(parity(), 0);
  const std::vector<int> ranks = own_group();
  if (parity() == 0) {
    std::vector<double> sum = {1};
    group->all_reduce_sum(sum);
    EXPECT_EQ(sum[0], static_cast<double>(ranks.size()));
    int64_t largest = world().rank();
    group->all_reduce_max(std::span(&largest, 1));
    EXPECT_EQ(largest, ranks.back());
    const int last = group->world_size() - 1;
    EXPECT_EQ(broadcast_text(*group, concat("from ", world().rank()), last),
              concat("from ", ranks.back()));
    group->barrier();
    const std::string got = failure_of([&] {
      together(*group, [&] {
        if (group->rank() == last) fail("no file");
      });
    });
    EXPECT_EQ(got, last == 0 ? "no file" : concat("rank ", last, ": no file"));
  }
  world().barrier();
}

TEST(Split, GroupsOfGroups) {
  const auto group = world().split(parity(), 0);
  const auto alone = group->split(group->rank(), 0);
  EXPECT_EQ(alone->world_size(), 1);
  const auto same = group->split(0, 0);
  EXPECT_EQ(sum_over(*same), sum_of_ranks(own_group()));
}

TEST(Split, AGroupOutlivesTheOneItIsSplitFrom) {
  auto parent = world().split(0, 0);
  const auto group = parent->split(parity(), 0);
  parent.reset();
  EXPECT_EQ(sum_over(*group), sum_of_ranks(own_group()));
}

TEST(Split, ANegativeColorOfOneRankIsAnErrorOfAll) {
  const int last = world().world_size() - 1;
  std::string got;
  try {
    (void)world().split(world().rank() == last ? -1 : 0, 0);
  } catch (const SharedError& error) {
    got = error.what();
  }
  const std::string message = "split: color = -1, expected 0 or more";
  EXPECT_EQ(got, last == 0 ? message : concat("rank ", last, ": ", message));
  world().barrier();  // nobody is left waiting
}

TEST(Split, RefusesOtherThreads) {
  const auto group = world().split(0, 0);
  std::string got;
  std::thread([&] { got = failure_of([&] { group->barrier(); }); }).join();
  EXPECT_NE(got.find("another thread"), std::string::npos) << got;
  world().barrier();
}

// An op of several ranks: y = sum over the group of x, so dx = sum over the group of dy.
Var sum_over_group(Context& ctx, const Var& x) {
  CHECK(ctx.group != nullptr, "sum_over_group: without a group");
  const auto summed = [](Context& of, const Tensor& part) {
    Tensor sum = zeros(of.exec, part.shape());
    std::copy_n(part.data<float>(), part.numel(), sum.data<float>());
    of.group->all_reduce_sum(of.exec, sum.data<float>(), sum.numel());
    return sum;
  };
  Var y = make_output(ctx, summed(ctx, x.value));
  if (ctx.tape) {
    const auto backward = [x_slot = x.slot, summed](Context& inner, std::span<Tensor> dy) {
      x_slot->add(inner, summed(inner, dy[0]));
    };
    ctx.tape->record({"sum_over_group"}, {y.slot}, backward);
  }
  return y;
}

// Forward, backward and the replay of a recomputed segment find the group in their Context.
TEST(Context, CarriesTheGroupToOps) {
  const auto group = world().split(parity(), 0);
  const float of_group = sum_of_ranks(own_group());
  for (const bool recomputed : {false, true}) {
    Tape tape;
    Context ctx{.exec = Cpu{1}, .tape = &tape, .group = group.get()};
    const auto own = static_cast<float>(world().rank() + 1);
    Tensor x = zeros(ctx.exec, {2}), dy = zeros(ctx.exec, {2});
    x.data<float>()[1] = own;
    dy.data<float>()[0] = own;
    const Var in{x, std::make_shared<GradSlot>()};
    const Segment op = [](Context& inner, const std::vector<Var>& inputs) {
      return std::vector<Var>{sum_over_group(inner, inputs[0])};
    };
    const Var y = recomputed ? recompute(ctx, {in}, op)[0] : op(ctx, {in})[0];
    EXPECT_EQ(y.value.data<float>()[1], of_group);
    tape.backward(ctx, {{y.slot, dy}});
    const Tensor dx = in.slot->take();
    EXPECT_EQ(dx.data<float>()[0], of_group);
    EXPECT_EQ(dx.data<float>()[1], 0);
  }
}

}  // namespace
}  // namespace rodimus
