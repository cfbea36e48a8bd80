#include "train/report/bench.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <optional>

#include "base/progress.h"
#include "kernels/device.h"
#include "kernels/memory.h"
#include "kernels/philox.h"
#include "kernels/timeline.h"
#include "train/config/resolve.h"
#include "train/peak.h"
#include "train/placement.h"
#include "train/step.h"

namespace rodimus {
namespace {

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  file >> pages >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

double sum_over_ranks(Communicator& communicator, double value) {
  communicator.all_reduce_sum(std::span<double>(&value, 1));
  return value;
}

// Each rate is measured on all ranks at once, because they share the machine.
MachineRates measure_machine(Exec& exec, Communicator& communicator) {
  const auto rate = [&](auto&& measure) {
    communicator.barrier();
    return sum_over_ranks(communicator, measure());
  };
  // Much larger than any last-level cache; on a CPU the ranks share the cache.
  const int64_t triad_bytes = device_of(exec) == Device::cuda
                                  ? int64_t{1} << 30
                                  : (int64_t{256} << 20) / communicator.local_size();
  MachineRates rates;
  rates.gemm_f32 = rate([&] { return measure_gemm_gflops(exec, DType::f32); });
  if (has_native_bf16(device_of(exec)))
    rates.gemm_bf16 = rate([&] { return measure_gemm_gflops(exec, DType::bf16); });
  rates.triad = rate([&] { return measure_triad_gb_per_s(exec, triad_bytes); });
  memory::release_cached();
  return rates;
}

Batch random_batch(const ResolvedConfig& config, int rank) {
  Batch batch;
  batch.B = config.run.micro_batch;
  batch.T = config.data.seq_len;
  const auto stream = static_cast<uint64_t>(rank);
  const auto draw = [&](uint64_t i) {
    return static_cast<int32_t>(random_unit(config.run.seed, stream, i) *
                                static_cast<double>(config.model.vocab_size));
  };
  for (uint64_t i = 0; i < static_cast<uint64_t>(batch.B * batch.T); ++i) {
    batch.inputs.push_back(draw(2 * i));
    batch.targets.push_back(draw(2 * i + 1));
  }
  return batch;
}

TrainingBench bench_training(const ResolvedConfig& config, Context ctx, Model& model,
                             const BenchOptions& options, const MachineRates& rates,
                             Communicator& communicator) {
  const auto optimizer = make_optimizer(ctx.exec, model.parameters(), config.optimizer);
  const Batch batch = random_batch(config, communicator.rank());
  const int ranks = communicator.world_size();
  Stepper stepper{.ctx = ctx,
                  .model = model,
                  .optimizer = *optimizer,
                  .communicator = communicator,
                  .tokens = config.tokens_per_step(),
                  .micro_batches = config.micro_batches(),
                  .recompute = config.run.recompute,
                  .next = [&] { return to_tensors(ctx.exec, batch); }};
  constexpr double kStay = 0;  // learning rate: random targets would make the model diverge
  for (int64_t i = 0; i < options.warmup; ++i) stepper.step(kStay);
  memory::reset_peak();
  const Measured measured = measure(stepper.ctx, options.steps, [&] {
    if (stepper.step(kStay).skipped) fail("bench: the loss or its gradient is not finite");
  });
  TrainingBench result;
  result.allocator_peak = memory::stats(ctx.device()).peak;
  result.process_bytes = resident_bytes();
  result.global_batch = config.run.global_batch;
  result.micro_batch = config.run.micro_batch;
  result.seq_len = config.data.seq_len;
  result.recompute = config.run.recompute;
  result.steps = options.steps;
  const DryStep dry = dry_step(config.model, described(ctx.exec), ctx.compute,
                               {.B = config.run.micro_batch,
                                .T = config.data.seq_len,
                                .micro_batches = stepper.micro_batches,
                                .recompute = config.run.recompute},
                               config.optimizer);
  result.predicted = dry.memory;
  result.flop = dry.useful_flop() * ranks;
  result.gemm_gflops = rates.gemm(ctx.compute);
  result.step_s = measured.seconds;
  result.ops = table_of(measured.profile, result.gemm_gflops / ranks, rates.triad / ranks);
  return result;
}

}  // namespace

Measured measure(Context& ctx, int64_t times, const std::function<void()>& work) {
  std::optional<Timeline> timeline;
  on_device(ctx.exec, [&]<class Backend>(Backend& backend) {
    if constexpr (std::is_same_v<Backend, Cuda>) timeline.emplace(backend);
  });
  const auto wait_for_device = [&] { on_device(ctx.exec, [](auto& backend) { wait(backend); }); };
  std::vector<double> seconds;
  std::vector<Profile> profiles(static_cast<size_t>(times));
  for (Profile& profile : profiles) {
    if (timeline) {
      wait_for_device();
      const auto begin = std::chrono::steady_clock::now();
      work();
      wait_for_device();
      seconds.push_back(seconds_since(begin));
      profile.use({[&] { timeline->mark(); }, [&] { return timeline->read(); }});
    }
    ctx.profile = &profile;
    profile.start();
    work();
    profile.stop();
    ctx.profile = nullptr;
    if (!timeline) seconds.push_back(profile.seconds());
  }
  const auto middle = (times - 1) / 2;
  std::nth_element(seconds.begin(), seconds.begin() + middle, seconds.end());
  std::nth_element(profiles.begin(), profiles.begin() + middle, profiles.end(),
                   [](const auto& a, const auto& b) { return a.seconds() < b.seconds(); });
  const auto at = static_cast<size_t>(middle);
  profiles[at].use({});  // its clock ends here
  return {seconds[at], std::move(profiles[at])};
}

Bench bench(const Config& written, const BenchOptions& options, Communicator& control) {
  std::unique_ptr<Model> model;
  const Place place = place_ranks(written.run.device, written.run.threads, control);
  Communicator& communicator = *place.communicator;
  const int ranks = communicator.world_size();
  std::optional<ResolvedConfig> resolved;
  together(communicator, [&] {
    if (written.model.vocab_size == 0)
      fail(
          "bench: model.vocab_size is not set, and there is no data to take it from: add --set "
          "model.vocab_size=N");
    resolved = resolve(written, circumstances_of(place));
  });
  const ResolvedConfig& config = *resolved;
  Context ctx{place.exec, config.compute};
  const MachineRates rates = measure_machine(ctx.exec, communicator);
  together(communicator, [&] {
    model = std::make_unique<Model>(config.model, ctx.exec, ctx.compute, /*grads=*/!options.decode);
    initialize(ctx.exec, model->parameters(), config.run.seed);
  });
  Bench result;
  result.block = config.model.block;
  result.parameters = model->parameters().count();
  result.compute = ctx.compute;
  result.compute_reason = describe_compute(written.run.compute, ctx.device());
  result.ranks = ranks;
  result.device = describe_device(written.run.device, ctx.exec);
  result.machine = rates;
  if (options.decode) {
    result.decode = bench_decode(ctx, *model, options, rates);
  } else {
    result.training = bench_training(config, ctx, *model, options, rates, communicator);
  }
  return result;
}

}  // namespace rodimus
