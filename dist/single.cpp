// The communicator of a run with one rank: every collective is the identity.
#include <cstdlib>

#include "dist/communicator.h"

namespace rodimus {
namespace {

class Single final : public Communicator {
 public:
  int rank() const override { return 0; }
  int world_size() const override { return 1; }
  int local_rank() const override { return 0; }
  int local_size() const override { return 1; }
  void all_reduce_sum(Cpu&, float*, int64_t) override {}
  void all_reduce_sum(Cuda&, float*, int64_t) override {}
  void all_reduce_sum(std::span<double>) override {}
  void all_reduce_max(std::span<int64_t>) override {}
  void broadcast(std::span<std::byte>, int root) override {
    CHECK(root == 0, "broadcast: root = ", root, " in a run with 1 rank");
  }
  void barrier() override {}
  // _Exit, not exit: a worker thread may still use objects that static destructors would destroy.
  [[noreturn]] void abort(int exit_code) override { std::_Exit(exit_code); }

 private:
  std::unique_ptr<Communicator> group_of(int, int) override { return make_single(); }
};

}  // namespace

std::unique_ptr<Communicator> make_single() { return std::make_unique<Single>(); }

}  // namespace rodimus
