// `rodimus plan`: what a run would take on GPUs, from data sheets and the shape of the model. A
// model of lower bounds, not a measurement.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/config/config.h"

namespace rodimus {

// Rates of one GPU as its data sheet states them.
struct GpuSheet {
  std::string name;       // of --gpu
  std::string full_name;  // of the product
  double memory_gb;       // 1e9 bytes
  double memory_gb_per_s;
  double bf16_tflops;      // tensor cores, dense, f32 sums
  double f32_tflops;       // no tensor cores
  double nvlink_gb_per_s;  // each way
  bool switch_adds;        // NVSwitch adds up and hands on what GPUs send (NVLink SHARP)
  int per_node;            // GPUs joined by NVLink, and NICs
};
const std::vector<GpuSheet>& gpu_sheets();
const GpuSheet& gpu_sheet(const std::string& name);  // throws Error that lists the names

struct PlanOptions {
  int gpus = 1;
  std::string gpu = "h100";
  double network_gbit_per_s = 400;  // of one GPU, each way, between nodes
};

// One object with all figures; keys carry units. Time: of each op the larger of FLOPs by the
// tensor rate and bytes by the memory bandwidth; the sum over ops and the all-reduce (f32
// gradients; NVLink and network apart, "assumed" says under what) overlap as if perfectly. Throws
// Error for a configuration that cannot be trained on that many ranks, or without model.vocab_size.
nlohmann::ordered_json plan(const Config& written, const PlanOptions& options);

std::string describe_plan(const nlohmann::ordered_json& plan);

}  // namespace rodimus
