// `rodimus plan`: what a run would take on GPUs, from data sheets and the shape of the model. These
// are lower bounds from a model, not measurements.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "train/config/resolve.h"
#include "train/dry_step.h"

namespace rodimus {

// Rates of one GPU from its data sheet.
struct GpuSheet {
  std::string name;       // as given to --gpu
  std::string full_name;  // product name
  double memory_gb;       // 1e9 bytes
  double memory_gb_per_s;
  double bf16_tflops;      // tensor cores, dense, f32 sums
  double f32_tflops;       // no tensor cores
  double nvlink_gb_per_s;  // each way
  bool switch_adds;        // NVSwitch adds up and passes on what GPUs send (NVLink SHARP)
  int per_node;            // GPUs joined by NVLink, and NICs
};
const std::vector<GpuSheet>& gpu_sheets();
const GpuSheet& gpu_sheet(const std::string& name);  // throws Error that lists the names

struct PlanOptions {
  int gpus = 1;
  std::string gpu = "h100";
  double network_gbit_per_s = 400;  // per GPU, each way, between nodes
};

// The all-reduce of the gradients (f32) over all GPUs.
struct PlannedSum {
  int nodes = 1, gpus_of_last_node = 1;
  double sent_bytes_per_gpu = 0, nvlink_gb_per_s = 0, node_seconds = 0;
  double sent_bytes_over_network = 0, network_gb_per_s_per_node = 0, network_seconds = 0;
  double seconds = 0;
  std::optional<double> bus_gb_per_s;  // nullopt with one GPU
};

struct PlannedOp {
  std::string name;
  int64_t calls = 0;
  double flop = 0, bytes = 0, seconds = 0;
  double compute_seconds = 0;  // of the calls that are bound by FLOPs rather than memory
  bool flop_bound() const { return compute_seconds > seconds / 2; }
};

// What a run would take. The time of an op is the larger of FLOPs over the tensor rate and bytes
// over the memory bandwidth; the all-reduce is assumed to overlap perfectly with the sum over ops.
struct Plan {
  ResolvedConfig config;  // one rank per GPU
  GpuSheet gpu;
  int64_t parameters = 0;
  TrainingMemory memory = {}, memory_with_recompute = {};  // per GPU
  PlannedSum sum = {};
  std::vector<PlannedOp> ops = {};  // per GPU and step, slowest first
  PlannedOp all = {};               // their sum
  double useful_flop = 0;           // per GPU and step
  double step_seconds = 0;
  bool fits(const TrainingMemory& bytes) const {
    return static_cast<double>(bytes.total()) < gpu.memory_gb * 1e9;
  }
  double flop_per_s() const;  // of the compute type, from the data sheet
  double tokens_per_s() const;
  double mfu() const { return useful_flop / step_seconds / flop_per_s(); }
  std::string bound() const;  // what takes the most time: "FLOPs", "memory" or "communication"
  int64_t checkpoint_bytes() const { return 12 * parameters; }  // weights and two moments in f32
};

// Throws Error for a configuration that cannot be trained on that many ranks, or that lacks
// model.vocab_size.
Plan plan(const Config& written, const PlanOptions& options);

nlohmann::ordered_json to_json(const Plan& plan);  // keys carry units
std::string describe(const Plan& plan);

}  // namespace rodimus
