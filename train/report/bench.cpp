#include "train/report/bench.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <optional>

#include "kernels/device.h"
#include "kernels/memory.h"
#include "kernels/philox.h"
#include "layers/memory.h"
#include "train/config/resolve.h"
#include "train/peak.h"
#include "train/placement.h"
#include "train/report/inspect.h"
#include "train/step.h"

namespace rodimus {
namespace {

using Json = nlohmann::ordered_json;

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

// Each rate is taken by all ranks at once, because they share the machine.
MachineRates measure_machine(Exec& exec, Communicator& communicator) {
  const auto rate = [&](auto&& measure) {
    communicator.barrier();
    return sum_over_ranks(communicator, measure());
  };
  // Far above any last-level cache; the ranks share that of a CPU.
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

Json memory_json(const ResolvedConfig& config, int64_t allocator_peak) {
  const TrainingMemory memory =
      training_memory(config.model, config.device, config.compute, config.run.micro_batch,
                      config.data.seq_len, config.run.recompute);
  return {{"allocator_peak_bytes", allocator_peak},
          {"process_bytes", resident_bytes()},
          {"predicted_bytes", memory.total()},
          {"predicted", to_json(memory)}};
}

}  // namespace

void wait_for_device(Profile& profile, Exec& exec) {
  if (device_of(exec) == Device::cuda)
    profile.wait_with([&exec] { on_device(exec, [](auto& backend) { wait(backend); }); });
}

namespace {

Json bench_training(const ResolvedConfig& config, const Context& ctx, Model& model,
                    const BenchOptions& options, const MachineRates& rates,
                    Communicator& communicator) {
  Context profiled = ctx;
  const auto optimizer = make_optimizer(profiled.exec, model.parameters(), config.optimizer);
  const Batch batch = random_batch(config, communicator.rank());
  const int ranks = communicator.world_size();
  Stepper stepper{.ctx = profiled,
                  .model = model,
                  .optimizer = *optimizer,
                  .communicator = communicator,
                  .tokens = config.tokens_per_step(),
                  .micro_batches = config.micro_batches(),
                  .recompute = config.run.recompute,
                  .next = [&] { return to_tensors(profiled.exec, batch); }};
  constexpr double kStay = 0;  // learning rate: random targets would make the model diverge
  for (int64_t i = 0; i < options.warmup; ++i) stepper.step(kStay);
  memory::reset_peak();
  std::vector<Profile> steps(static_cast<size_t>(options.steps));
  for (Profile& profile : steps) {
    stepper.ctx.profile = &profile;
    wait_for_device(profile, profiled.exec);
    profile.start();
    const StepResult result = stepper.step(kStay);
    profile.stop();
    if (result.skipped) fail("bench: the loss or its gradient is not finite");
  }
  const int64_t peak = memory::stats(ctx.device()).peak;
  const Profile& median = median_of(steps);
  const double step_s = median.seconds(), tokens = static_cast<double>(stepper.tokens);
  const double flop = 3 * forward_flops_per_token(config.model, config.data.seq_len) * tokens;
  const double gemm = rates.gemm(ctx.compute);
  return {{"global_batch", config.run.global_batch},
          {"micro_batch", config.run.micro_batch},
          {"seq_len", config.data.seq_len},
          {"recompute", config.run.recompute},
          {"steps", options.steps},
          {"step_s", step_s},
          {"tokens_per_s", tokens / step_s},
          {"gflop_per_step", flop / 1e9},
          {"gflops", flop / step_s / 1e9},
          {"mfu", flop / step_s / (gemm * 1e9)},
          {"memory", memory_json(config, peak)},
          {"ops", table_of(median, gemm / ranks, rates.triad / ranks)}};
}

}  // namespace

const Profile& median_of(std::vector<Profile>& profiles) {
  const auto middle = profiles.begin() + static_cast<std::ptrdiff_t>((profiles.size() - 1) / 2);
  std::nth_element(profiles.begin(), middle, profiles.end(),
                   [](const auto& a, const auto& b) { return a.seconds() < b.seconds(); });
  return *middle;
}

Json bench(const Config& written, const BenchOptions& options, Communicator& control) {
  std::unique_ptr<Model> model;
  const Place place = place_ranks(written.run.device, written.run.threads, control);
  Communicator& communicator = *place.communicator;
  const int ranks = communicator.world_size();
  std::optional<ResolvedConfig> resolved;
  together(communicator, [&] {
    if (written.model.vocab_size == 0)
      fail(
          "bench: model.vocab_size is not set, and there is no data to tell it: add --set "
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
  Json result{{"model", config.model.block},
              {"parameters", model->parameters().count()},
              {"compute", name_of(ctx.compute)},
              {"compute_reason", describe_compute(written.run.compute, ctx.device())},
              {"ranks", ranks},
              {"device", describe_device(written.run.device, ctx.exec)},
              {"machine",
               {{"gemm_f32_gflops", rates.gemm_f32},
                {"gemm_bf16_gflops", rates.gemm_bf16 > 0 ? Json(rates.gemm_bf16) : Json()},
                {"triad_gb_per_s", rates.triad}}}};
  if (options.decode) {
    result["decode"] = bench_decode(ctx, *model, options, rates);
  } else {
    result["training"] = bench_training(config, ctx, *model, options, rates, communicator);
  }
  return result;
}

}  // namespace rodimus
