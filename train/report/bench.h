// `rodimus bench`: what the machine can do, and how close a training step and token-by-token
// generation come to it. Works on random tokens; needs no data.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "dist/communicator.h"
#include "layers/model.h"
#include "train/config/config.h"

namespace rodimus {

struct BenchOptions {
  int64_t steps = 5, warmup = 2;  // measured, and before them
  bool decode = false;            // generation instead of training
};

// Rates of all ranks together, each measured on all at the same time.
struct MachineRates {
  double gemm_f32 = 0, gemm_bf16 = 0;  // GFLOP/s; bf16 0: the device has no instructions for it
  double triad = 0;                    // GB/s
  // Of the type that products are computed in.
  double gemm(DType compute) const {
    return compute == DType::bf16 && gemm_bf16 > 0 ? gemm_bf16 : gemm_f32;
  }
};

// One object with all figures, on every rank; times, memory and the table by op are those of the
// calling rank. Keys carry units. Every rank calls it. Throws Error for a configuration that cannot
// be trained, and when model.vocab_size is not set.
nlohmann::ordered_json bench(const Config& written, const BenchOptions& options,
                             Communicator& communicator);

// Generation of single tokens for one sequence, at positions 1k and 64k. `rates` are those of this
// rank.
nlohmann::ordered_json bench_decode(Context& ctx, Model& model, const BenchOptions& options,
                                    const MachineRates& rates);

// A state as if `position` tokens had been read: constant-size parts, and keys and values as far
// back as the window reaches, made up at random.
ModelState state_at(Context& ctx, Model& model, int64_t position);

// On a GPU: lets the profile's clock wait for the work of each op. `exec` must outlive its use.
void wait_for_device(Profile& profile, Exec& exec);

// The one that took the median time; reorders them.
const Profile& median_of(std::vector<Profile>& profiles);

// The rows of a profile, slowest first, "unaccounted" last: op, phase, calls, seconds, share,
// gflop, mbytes, and of the limits that the rates set gemm_share and bandwidth_share. Seconds add
// up to the whole.
nlohmann::ordered_json table_of(const Profile& profile, double gemm_gflops, double triad_gb_per_s);

// The same for people: about forty lines.
std::string describe_bench(const nlohmann::ordered_json& result);

}  // namespace rodimus
