// `rodimus bench`: what the machine can do, and how close a training step and token-by-token
// generation come to it. Uses random tokens; needs no data.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "layers/model.h"
#include "train/config/config.h"
#include "train/dry_step.h"

namespace rodimus {

struct BenchOptions {
  int64_t steps = 5, warmup = 2;  // measured steps, and steps before them
  bool decode = false;            // generation instead of training
};

// Combined rates of all ranks, each measured on all ranks at the same time.
struct MachineRates {
  double gemm_f32 = 0, gemm_bf16 = 0;  // GFLOP/s; bf16 is 0 if not native
  double triad = 0;                    // GB/s
  // The rate of the type that products are computed in.
  double gemm(DType compute) const {
    return compute == DType::bf16 && gemm_bf16 > 0 ? gemm_bf16 : gemm_f32;
  }
};

// A row of the table by op: its share of the total time, and of the limits set by the rates.
struct BenchRow {
  Profile::Row row;
  double share = 0, gemm_share = 0, bandwidth_share = 0;
};
using BenchTable = std::vector<BenchRow>;  // slowest first, "unaccounted" last

struct TrainingBench {
  int64_t global_batch = 0, micro_batch = 0, seq_len = 0, steps = 0;
  bool recompute = false;
  double step_s = 0, flop = 0;  // median; useful FLOPs of a step over all ranks
  double gemm_gflops = 0;       // over all ranks
  int64_t allocator_peak = 0, process_bytes = 0;
  TrainingMemory predicted;
  BenchTable ops;
  double tokens_per_s() const { return static_cast<double>(global_batch * seq_len) / step_s; }
  double gflops() const { return flop / step_s / 1e9; }
  double mfu() const { return flop / step_s / (gemm_gflops * 1e9); }
};

struct DecodeBench {
  struct Position {
    int64_t position = 0;
    double token_s = 0, state_bytes = 0;
    BenchTable ops;
  };
  double weight_bytes_per_token = 0, limit_s = 0;  // limit_s: the time to read them
  std::vector<Position> positions;
};

// All figures; times, memory and tables are those of the calling rank.
struct Bench {
  std::string block;  // model.block
  int64_t parameters = 0;
  DType compute = DType::f32;
  std::string compute_reason, device;
  int ranks = 1;
  MachineRates machine;
  std::optional<TrainingBench> training;  // exactly one of the two is set
  std::optional<DecodeBench> decode;
};

// Every rank calls it. Throws Error for a configuration that cannot be trained, and when
// model.vocab_size is not set.
Bench bench(const Config& written, const BenchOptions& options, Communicator& communicator);

// Generates single tokens of one sequence, at positions 1k and 64k. `rates` are those of this rank.
DecodeBench bench_decode(Context& ctx, Model& model, const BenchOptions& options,
                         const MachineRates& rates);

// A random state as if `position` tokens had been read: the constant-size parts, and keys and
// values as far back as the window reaches.
ModelState state_at(Context& ctx, Model& model, int64_t position);

// The median of `times` runs of `work`, which uses `ctx`: the time, and a profile. On a GPU a
// profile slows the host, which queues an event for each op: there the two come from runs of their
// own, and a run that is timed waits for the GPU only at its end.
struct Measured {
  double seconds = 0;
  Profile profile;
};
Measured measure(Context& ctx, int64_t times, const std::function<void()>& work);

// The rows of a profile compared with the rates of this rank. Seconds add up to the total.
BenchTable table_of(const Profile& profile, double gemm_gflops, double triad_gb_per_s);

nlohmann::ordered_json to_json(const Bench& result);  // keys carry units
std::string describe(const Bench& result);            // for people: about forty lines

}  // namespace rodimus
