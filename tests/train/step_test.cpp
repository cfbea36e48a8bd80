// Whole steps of two ranks with buckets so small that backward starts a sum at every mark. The
// truth uses neither ranks nor marks: each rank computes the gradients of both, one after the
// other, and adds them. All numbers must be equal, because a sum of two is a single, commutative
// addition. On GPUs also how often such a step makes the host wait.
#include "train/step.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernels/convert.h"
#include "kernels/memory.h"
#include "kernels/reduce.h"
#include "layers/blocks.h"
#ifdef RODIMUS_TEST_CUDA
#include "tests/dist/nccl_fixture.h"
#else
#include "tests/support/mpi_main.h"
#include "tests/support/random.h"
#endif

namespace rodimus::testing {
namespace {

#ifdef RODIMUS_TEST_CUDA
constexpr int64_t kSteps = 1;  // a step takes seconds on the emulator
#else
constexpr int64_t kSteps = 2;
#endif
constexpr int64_t kMicroBatches = 2, kT = 21, kVocab = 50, kLayers = 3;
constexpr double kLr = 1e-2;

// Forwards everything, and reports when a sum starts.
class Watched final : public Communicator {
 public:
  Watched(Communicator& inner, std::function<void(int64_t n)> on_start)
      : inner_(inner), on_start_(std::move(on_start)) {}
  void start_sum(Exec& exec, float* x, int64_t n) override {
    on_start_(n);
    inner_.start_sum(exec, x, n);
  }

  int rank() const override { return inner_.rank(); }
  int world_size() const override { return inner_.world_size(); }
  int local_rank() const override { return inner_.local_rank(); }
  int local_size() const override { return inner_.local_size(); }
  void all_reduce_sum(Cpu& exec, float* x, int64_t n) override {
    inner_.all_reduce_sum(exec, x, n);
  }
  void all_reduce_sum(Cuda& gpu, float* x, int64_t n) override { inner_.all_reduce_sum(gpu, x, n); }
  void finish_sums(Exec& exec) override { inner_.finish_sums(exec); }
  void all_reduce_sum(std::span<double> x) override { inner_.all_reduce_sum(x); }
  void all_reduce_max(std::span<int64_t> x) override { inner_.all_reduce_max(x); }
  void broadcast(std::span<std::byte> bytes, int root) override { inner_.broadcast(bytes, root); }
  void barrier() override { inner_.barrier(); }
  [[noreturn]] void abort(int exit_code) override {
    inner_.abort(exit_code);
    std::abort();  // g++ does not see that a virtual function never returns
  }

 private:
  std::unique_ptr<Communicator> group_of(int color, int key) override {
    return inner_.split(color, key);
  }

  Communicator& inner_;
  std::function<void(int64_t)> on_start_;
};

ModelConfig config_of(const std::string& block, bool tied) {
  ModelConfig config;
  config.block = block;
  config.tied = tied;
  config.vocab_size = kVocab;
  config.d_model = 32;
  config.n_layers = kLayers;
  config.mem_size = 16;
  config.n_heads = 2;
  config.window = 9;
  return config;
}

struct Trainee {
  Exec exec;
  Model model;
  std::unique_ptr<Optimizer> optimizer;

  Trainee(const Exec& where, const ModelConfig& config)
      : exec(where),
        model(config, exec, DType::f32, /*grads=*/true),
        optimizer(make_optimizer(exec, model.parameters(), {})) {
    initialize(exec, model.parameters(), 7);
  }
};

BatchTensors batch_of(Exec& exec, int64_t step, int rank, int64_t micro_batch) {
  const int64_t index = (step * world().world_size() + rank) * kMicroBatches + micro_batch;
  std::vector<int32_t> ids;
  for (const double draw : uniform(kT + 1, static_cast<uint64_t>(index), 0, kVocab))
    ids.push_back(static_cast<int32_t>(draw));
  const std::span all(ids);
  return {to_device(exec, all.first(kT), {1, kT}), to_device(exec, all.last(kT), {1, kT}), {}};
}

// The result of a step: gradients and values of all parameters, by name.
struct State {
  double loss = 0, grad_norm = 0;
  std::map<std::string, std::vector<float>> tensors;
};

std::vector<float> floats_of(Exec& exec, const Tensor& x) {
  const Tensor host = on_host(exec, x);
  return {host.data<float>(), host.data<float>() + host.numel()};
}

State state_of(Trainee& trainee, double loss, double grad_norm) {
  State state{loss, grad_norm, {}};
  const ParameterBuffers& buffers = trainee.model.parameters();
  for (const Parameter* p : buffers.parameters) {
    state.tensors[p->name] = floats_of(trainee.exec, p->var.value);
    state.tensors["gradient of " + p->name] =
        floats_of(trainee.exec, buffers.grads.slice(p->offset, p->shape));
  }
  return state;
}

// Names of the tensors with an unequal number, or NaN.
std::string differing(const State& got, const State& want) {
  std::string names;
  for (const auto& [name, values] : want.tensors) {
    if (!(got.tensors.at(name) == values)) names += "\n  " + name;
  }
  return names;
}

// Computes the gradients of one rank into the model's buffer. Returns the sum of its losses.
double gradients_of(Trainee& trainee, int64_t step, int rank, float scale) {
  Tensor& grads = trainee.model.parameters().grads;
  double loss = 0;
  on_device(trainee.exec,
            [&](auto& device) { fill(device, grads.data<float>(), 0, grads.numel()); });
  for (int64_t i = 0; i < kMicroBatches; ++i) {
    const BatchTensors batch = batch_of(trainee.exec, step, rank, i);
    Tape tape;
    Context ctx{trainee.exec, DType::f32, &tape};
    const Tensor losses = trainee.model.losses(ctx, batch.inputs, batch.targets, {}, scale);
    tape.backward(ctx, {});
    on_device(ctx.exec, [&](auto& device) { loss += sum(device, losses.data<float>(), kT); });
  }
  return loss;
}

std::vector<State> without_ranks(const Exec& exec, const ModelConfig& config) {
  Trainee trainee(exec, config);
  Tensor& grads = trainee.model.parameters().grads;
  const int64_t tokens = world().world_size() * kMicroBatches * kT;
  std::vector<State> states;
  for (int64_t step = 0; step < kSteps; ++step) {
    double loss = 0;
    std::vector<float> sum(static_cast<size_t>(grads.numel()));
    for (int rank = 0; rank < world().world_size(); ++rank) {
      loss += gradients_of(trainee, step, rank, 1 / static_cast<float>(tokens));
      const std::vector<float> own = floats_of(trainee.exec, grads);
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += own[i];
    }
    on_device(trainee.exec, [&](auto& device) {
      memory::upload(device, grads.raw(), sum.data(), grads.bytes());
    });
    const double norm = gradient_norm(trainee.exec, trainee.model.parameters());
    trainee.optimizer->step(trainee.exec, kLr, norm);
    states.push_back(state_of(trainee, loss / static_cast<double>(tokens), norm));
  }
  return states;
}

// The same with Stepper. `midway` counts the sums that started before the last micro-batch of a
// step reached its embedding, with which backward ends.
std::vector<State> with_ranks(const Exec& exec, Communicator& ranks, const ModelConfig& config,
                              bool recompute, int64_t bucket, int64_t* midway) {
  Trainee trainee(exec, config);
  int64_t taken = 0;  // micro-batches
  Profile profile;
  profile.start();
  Watched watched(ranks, [&](int64_t n) {
    int64_t ended = 0;
    for (const Profile::Row& row : profile.rows()) {
      if (row.op.name == "embedding" && row.phase == Profile::Phase::backward) ended = row.calls;
    }
    if (n > 0 && taken % kMicroBatches == 0 && ended == taken - 1) ++*midway;
  });
  Stepper stepper{.ctx = {trainee.exec, DType::f32, nullptr, &profile},
                  .model = trainee.model,
                  .optimizer = *trainee.optimizer,
                  .communicator = watched,
                  .tokens = ranks.world_size() * kMicroBatches * kT,
                  .micro_batches = kMicroBatches,
                  .recompute = recompute,
                  .next =
                      [&] {
                        const int64_t i = taken++;
                        return batch_of(trainee.exec, i / kMicroBatches, ranks.rank(),
                                        i % kMicroBatches);
                      },
                  .bucket = bucket};
  std::vector<State> states;
  for (int64_t step = 0; step < kSteps; ++step) {
    const StepResult result = stepper.step(kLr);
    EXPECT_FALSE(result.skipped);
    states.push_back(state_of(trainee, result.loss, result.grad_norm));
  }
  return states;
}

void expect_the_bits_without_ranks(const Exec& exec, Communicator& ranks,
                                   const std::string& block) {
  for (const bool tied : {false, true}) {
    const ModelConfig config = config_of(block, tied);
    const std::vector<State> want = without_ranks(exec, config);
    for (const bool recompute : {false, true}) {
      if (device_of(exec) == Device::cuda && recompute != tied) continue;
      for (const int64_t bucket : {int64_t{1}, BucketedSum::kBucket}) {
        if (device_of(exec) == Device::cuda && bucket != 1) continue;
        SCOPED_TRACE(::testing::Message()
                     << "tied " << tied << " recompute " << recompute << " bucket " << bucket);
        int64_t midway = 0;
        const auto got = with_ranks(exec, ranks, config, recompute, bucket, &midway);
        // One per block, plus one for the head unless it is the embedding.
        EXPECT_EQ(midway, bucket == 1 ? kSteps * (kLayers + (tied ? 0 : 1)) : 0);
        for (size_t i = 0; i < want.size(); ++i) {
          SCOPED_TRACE(::testing::Message() << "step " << i);
          EXPECT_EQ(got[i].loss, want[i].loss);
          EXPECT_EQ(got[i].grad_norm, want[i].grad_norm);
          EXPECT_EQ(differing(got[i], want[i]), "");
        }
      }
    }
  }
}

#ifdef RODIMUS_TEST_CUDA
TEST_P(NcclTest, StepsWithSmallBucketsHaveTheBitsWithoutRanks) {
  expect_the_bits_without_ranks(gpu, *nccl, "rodimus_plus");
}

// As without ranks (host_waits_test), although here a sum starts at every mark of each backward.
class HostWaits : public NcclTest {};
TEST_P(HostWaits, OfAStepAreFew) {
  Trainee trainee(gpu, config_of("rodimus_plus", /*tied=*/false));
  Stepper stepper{.ctx = {trainee.exec, DType::f32},
                  .model = trainee.model,
                  .optimizer = *trainee.optimizer,
                  .communicator = *nccl,
                  .tokens = nccl->world_size() * kMicroBatches * kT,
                  .micro_batches = kMicroBatches,
                  .next = [&] { return batch_of(trainee.exec, 0, nccl->rank(), 0); },
                  .bucket = 1};
  stepper.step(kLr);
  fakecuda::finish_all();
  (void)fakecuda::take_waits();
  stepper.step(kLr);
  const int64_t waits = fakecuda::take_waits();
  EXPECT_GE(waits, 2);  // the counter counts
  EXPECT_LE(waits, kMicroBatches + 3);
}
// Where every needed wait is a wait.
INSTANTIATE_TEST_SUITE_P(Step, HostWaits,
                         ::testing::Values(Condition{"lazy", fakecuda::Policy::lazy, 1}),
                         name_of_condition);
INSTANTIATE_TEST_SUITE_P(Step, NcclTest, conditions(), name_of_condition);
#else
TEST(Step, WithSmallBucketsHasTheBitsWithoutRanks) {
  for (const std::string& block : block_names()) {
    SCOPED_TRACE(::testing::Message() << "block " << block);
    expect_the_bits_without_ranks(Cpu{1}, world(), block);
  }
}
#endif

}  // namespace
}  // namespace rodimus::testing
