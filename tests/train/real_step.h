// A training step as it is done, for what other parts of the program say of one. On the emulator
// kernels and products are checked and recorded, and do nothing: whole presets fit into the time
// and the memory of a test.
#pragma once

#include <map>
#include <ostream>

#include "autograd/profile.h"
#include "tests/support/device.h"
#include "train/dry_step.h"
#include "train/step.h"
#ifdef RODIMUS_TEST_CUDA
#include "tests/fakecuda/work.h"
#include "tests/simt/emulator.h"
#endif

namespace rodimus::testing {

struct Total {  // of an op in a phase
  int64_t calls = 0;
  double flop = 0, bytes = 0;
  bool operator==(const Total&) const = default;
};
inline std::ostream& operator<<(std::ostream& to, const Total& total) {
  return to << total.calls << " calls, " << total.flop << " FLOP, " << total.bytes << " bytes";
}
using Totals = std::map<std::string, Total>;

inline Totals totals_of(std::span<const Profile::Row> rows) {
  Totals totals;
  for (const Profile::Row& row : rows)
    totals[concat(label_of(row.op), ", ", name_of(row.phase))] = {row.calls, row.cost.flop,
                                                                  row.cost.bytes};
  return totals;
}

#ifdef RODIMUS_TEST_CUDA
// While one lives, the emulator's kernels do nothing.
class LaunchOnly {
 public:
  LaunchOnly() : before_(simt::config.launch_only) {
    (void)backend();  // its memory on the device is used for real
    simt::config.launch_only = true;
  }
  ~LaunchOnly() { simt::config.launch_only = before_; }
  LaunchOnly(const LaunchOnly&) = delete;
  LaunchOnly& operator=(const LaunchOnly&) = delete;

 private:
  bool before_;
};
#else
struct LaunchOnly {
  LaunchOnly() {}  // not trivial: a variable of this type is used
};
#endif

struct RealStep {
  int64_t peak = 0;  // of the allocator
  Totals totals;
};

// One optimizer step of a fresh model on `exec`.
inline RealStep real_step(const Backend& exec, const ModelConfig& config, DType compute,
                          const StepShape& shape) {
  Profile profile;
  Context ctx{exec, compute, nullptr, &profile};
  const LaunchOnly launch_only;
  memory::reset_peak();
  const int64_t before = memory::stats(kDevice).in_use;
  Model model(config, ctx.exec, compute, /*grads=*/true);
  initialize(ctx.exec, model.parameters(), 1);
  const auto optimizer = make_optimizer(ctx.exec, model.parameters(), {});
  const auto communicator = make_single();
  const std::vector<int32_t> ids(static_cast<size_t>(shape.B * shape.T), 0);
  const auto tensor = [&] { return to_device(ctx.exec, ids, {shape.B, shape.T}); };
  Stepper stepper{.ctx = ctx,
                  .model = model,
                  .optimizer = *optimizer,
                  .communicator = *communicator,
                  .tokens = shape.B * shape.T * shape.micro_batches,
                  .micro_batches = shape.micro_batches,
                  .recompute = shape.recompute,
                  .next = [&] {
                    return BatchTensors{tensor(), tensor(), shape.documents ? tensor() : Tensor{}};
                  }};
  profile.start();
  const StepResult result = stepper.step(1e-3);
  profile.stop();
  EXPECT_FALSE(result.skipped);  // kernels that did nothing leave zeros
  return {memory::stats(kDevice).peak - before, totals_of(profile.rows())};
}

}  // namespace rodimus::testing
