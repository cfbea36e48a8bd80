#include "train/report/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "layers/blocks.h"
#include "layers/costs.h"
#include "layers/memory.h"
#include "train/config/resolve.h"
#include "train/report/inspect.h"

namespace rodimus {
namespace {

using Json = nlohmann::ordered_json;

struct Rates {
  double flops, bandwidth;  // per second
};

// Time, FLOPs and bytes of the calls of one op in one optimizer step.
struct Share {
  int64_t calls = 0;
  double flop = 0, bytes = 0, seconds = 0;
  double compute_seconds = 0;  // of the calls for which FLOPs take longer than memory
  void add(const Cost& cost, double n, const Rates& rates) {
    const double compute = cost.flop / rates.flops, memory = cost.bytes / rates.bandwidth;
    flop += n * cost.flop;
    bytes += n * cost.bytes;
    seconds += n * std::max(compute, memory);
    if (compute > memory) compute_seconds += n * compute;
  }
};

// What takes most of the time.
const char* bound_of(double seconds, double compute_seconds) {
  return compute_seconds > seconds / 2 ? "FLOPs" : "memory";
}

// Slowest first.
std::vector<std::pair<std::string, Share>> shares_of_step(const ResolvedConfig& config,
                                                          const Rates& rates) {
  const DType compute = config.compute;
  const int64_t micro_batches = config.micro_batches();
  std::map<std::string, Share> by_name;
  for (const auto& [op, calls, again] :
       micro_batch_costs(config.model, compute, config.run.micro_batch, config.data.seq_len)) {
    Share& share = by_name[std::string(op.name)];
    const double n = static_cast<double>(calls * micro_batches);
    share.calls += calls * micro_batches;
    share.add(op.forward, n, rates);
    share.add(op.backward, n, rates);
    if (config.run.recompute)
      share.add(op.forward, static_cast<double>(again * micro_batches), rates);
  }
  // Zero the gradients, their norm, AdamW: 1 + 1 + 7 floats of each parameter, and the bf16 copy.
  const double parameters = static_cast<double>(parameter_count(config.model));
  Share& optimizer = by_name["optimizer"];
  optimizer.calls = 1;
  optimizer.add({0, parameters * (4 * 9 + (compute == DType::bf16 ? 2 : 0))}, 1, rates);
  std::vector<std::pair<std::string, Share>> shares(by_name.begin(), by_name.end());
  std::sort(shares.begin(), shares.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  return shares;
}

// The least time of an all-reduce, whatever the algorithm, nodes filled one after the other. Two
// cuts, both of which hold, so the later one counts; what crosses them overlaps as if perfectly:
// - What leaves the GPUs, over NVLink and each one's NIC: 2 (n - 1) times the buffer from all of
//   them together, as each element is added n - 1 times and handed on n - 1 times. Where the
//   switches of the node add up and hand on, a GPU still sends every element once.
// - What leaves the nodes, each with a NIC for every GPU: 2 (m - 1) times the buffer from m nodes,
//   and the whole buffer at least once from each, also from one with fewer GPUs.
Json communication(const GpuSheet& gpu, const PlanOptions& options, double gradient_bytes) {
  const double n = options.gpus, nic = options.network_gbit_per_s / 8 * 1e9;
  const int nodes = (options.gpus + gpu.per_node - 1) / gpu.per_node;
  const int in_last_node = options.gpus - (nodes - 1) * gpu.per_node;
  double sent_by_gpu = 0, sent_by_nodes = 0, gpu_s = 0, network_s = 0;
  if (options.gpus > 1) {
    sent_by_gpu = gpu.switch_adds ? gradient_bytes : 2 * (n - 1) / n * gradient_bytes;
    gpu_s = sent_by_gpu / (gpu.nvlink_gb_per_s * 1e9 + (nodes > 1 ? nic : 0));
  }
  if (nodes > 1) {
    sent_by_nodes = 2.0 * (nodes - 1) * gradient_bytes;
    network_s = std::max(sent_by_nodes / (n * nic), gradient_bytes / (in_last_node * nic));
  }
  const double seconds = std::max(gpu_s, network_s);
  return {{"nodes", nodes},
          {"gpus_of_last_node", in_last_node},
          {"assumed", "no sums in network switches; nodes filled one after the other"},
          {"sent_bytes_per_gpu", sent_by_gpu},
          {"nvlink_gb_per_s", gpu.nvlink_gb_per_s},
          {"node_seconds", gpu_s},
          {"sent_bytes_over_network", sent_by_nodes},
          {"network_gb_per_s_per_node", nic / 1e9 * std::min(gpu.per_node, options.gpus)},
          {"network_seconds", network_s},
          {"seconds", seconds},
          {"bus_gb_per_s",
           seconds > 0 ? Json(2 * (n - 1) / n * gradient_bytes / seconds / 1e9) : Json()}};
}

Json memory_of(const ResolvedConfig& config, double capacity) {
  Json memory;
  for (const bool recompute : {false, true}) {
    const TrainingMemory bytes =
        training_memory(config.model, config.device, config.compute, config.run.micro_batch,
                        config.data.seq_len, recompute);
    Json& entry = memory[recompute ? "with_recompute" : "without_recompute"] = to_json(bytes);
    entry["fits"] = static_cast<double>(bytes.total()) < capacity;
  }
  return memory;
}

std::string describe_communication(const Json& c) {
  if (c["bus_gb_per_s"].is_null()) return "";
  const int nodes = c["nodes"];
  std::string text =
      fmt::format("sum      of gradients: {:.4g} GB leave each GPU, {:.4g} s",
                  c["sent_bytes_per_gpu"].get<double>() / 1e9, c["node_seconds"].get<double>());
  if (nodes > 1) {
    text += fmt::format(
        "; {:.4g} GB leave {} nodes at {:.0f} GB/s each (GPUs of the last: {}), "
        "{:.4g} s",
        c["sent_bytes_over_network"].get<double>() / 1e9, nodes,
        c["network_gb_per_s_per_node"].get<double>(), c["gpus_of_last_node"].get<int>(),
        c["network_seconds"].get<double>());
  }
  return text +
         fmt::format("; bus bandwidth at most {:.0f} GB/s\n", c["bus_gb_per_s"].get<double>());
}

std::string gib(const Json& bytes) {
  return fmt::format("{:.2f}", bytes.get<double>() / (1 << 30));
}

}  // namespace

const std::vector<GpuSheet>& gpu_sheets() {
  static const std::vector<GpuSheet> sheets = {
      {"a100", "NVIDIA A100 SXM 80 GB", 80, 2039, 312, 19.5, 300, false, 8},
      {"h100", "NVIDIA H100 SXM", 80, 3350, 989, 66.9, 450, true, 8},
      {"h200", "NVIDIA H200 SXM", 141, 4800, 989, 66.9, 450, true, 8},
  };
  return sheets;
}

const GpuSheet& gpu_sheet(const std::string& name) {
  std::string known;
  for (const GpuSheet& sheet : gpu_sheets()) {
    if (sheet.name == name) return sheet;
    known += (known.empty() ? "" : ", ") + sheet.name;
  }
  fail("--gpu ", name, ": no data sheet of that name; there are ", known);
}

Json plan(const Config& written, const PlanOptions& options) {
  if (options.gpus < 1) fail("--gpus ", options.gpus, ": need 1 or more");
  if (!(options.network_gbit_per_s > 0))
    fail("--network ", options.network_gbit_per_s, ": need a rate above 0 in Gbit/s");
  const GpuSheet& gpu = gpu_sheet(options.gpu);
  if (written.model.vocab_size == 0)
    fail("plan: model.vocab_size is not set: add --set model.vocab_size=N");
  const ResolvedConfig config = resolve(written, {.device = Device::cuda, .ranks = options.gpus});
  const DType compute = config.compute;
  const Rates rates{(compute == DType::bf16 ? gpu.bf16_tflops : gpu.f32_tflops) * 1e12,
                    gpu.memory_gb_per_s * 1e9};
  const auto tokens = static_cast<double>(config.tokens_per_step());
  const int64_t parameters = parameter_count(config.model);

  Json ops = Json::array();
  double seconds = 0, compute_seconds = 0, flop = 0, bytes = 0;
  for (const auto& [name, share] : shares_of_step(config, rates)) {
    seconds += share.seconds;
    compute_seconds += share.compute_seconds;
    flop += share.flop;
    bytes += share.bytes;
    ops.push_back({{"op", name},
                   {"calls", share.calls},
                   {"seconds", share.seconds},
                   {"gflop", share.flop / 1e9},
                   {"gbytes", share.bytes / 1e9},
                   {"bound", bound_of(share.seconds, share.compute_seconds)}});
  }
  const Json reduce = communication(gpu, options, 4.0 * static_cast<double>(parameters));
  const double reduce_s = reduce["seconds"];
  const double step_s = std::max(seconds, reduce_s);
  const double useful = 3 * forward_flops_per_token(config.model, config.data.seq_len) * tokens;
  return {{"what", "modelled lower bound from data sheets, never run on a GPU"},
          {"model", config.model.block},
          {"parameters", parameters},
          {"gpu", gpu.full_name},
          {"gpus", options.gpus},
          {"compute", name_of(compute)},
          {"global_batch", config.run.global_batch},
          {"micro_batch", config.run.micro_batch},
          {"seq_len", config.data.seq_len},
          {"recompute", config.run.recompute},
          {"memory_gb", gpu.memory_gb},
          {"memory_per_gpu", memory_of(config, gpu.memory_gb * 1e9)},
          {"flop_per_step_and_gpu", flop},
          {"bytes_per_step_and_gpu", bytes},
          {"communication", reduce},
          {"gpu_seconds", seconds},
          {"step_seconds", step_s},
          {"bound", reduce_s > seconds ? "communication" : bound_of(seconds, compute_seconds)},
          {"tokens_per_s", tokens / step_s},
          {"mfu", useful / options.gpus / step_s / rates.flops},
          {"run_seconds", step_s * static_cast<double>(config.run.steps)},
          {"steps", config.run.steps},
          {"checkpoint_bytes", 12 * parameters},
          {"ops", ops}};
}

std::string describe_plan(const Json& p) {
  const double step_s = p["step_seconds"];
  std::string text = fmt::format(
      "{}, {} parameters, {} on {} x {}\n"
      "A model, not a measurement: lower bounds from data sheets. Real steps take longer.\n\n",
      block_type(p["model"].get<std::string>()).title, p["parameters"].get<int64_t>(),
      p["compute"].get<std::string>(), p["gpus"].get<int>(), p["gpu"].get<std::string>());
  for (const auto& [key, m] : p["memory_per_gpu"].items()) {
    text += fmt::format(
        "memory   {} GiB per GPU {}: parameters {}, gradients {}, moments {}, activations {}, "
        "workspace {}{}\n",
        gib(m["total_bytes"]),
        key == "with_recompute" ? "with recomputation   " : "without recomputation",
        gib(m["parameters_bytes"]), gib(m["gradients_bytes"]), gib(m["moments_bytes"]),
        gib(m["activations_bytes"]), gib(m["workspace_bytes"]),
        m["fits"].get<bool>()
            ? ""
            : fmt::format(": does NOT fit {:.0f} GB", p["memory_gb"].get<double>()));
  }
  text += fmt::format(
      "step     {} sequences of {} tokens{}: at least {:.4g} s, bound by {}; at most {:.0f} "
      "tokens/s, MFU {:.1f} %\n"
      "         per GPU {:.4g} TFLOP, {:.4g} GB of memory traffic\n"
      "{}"
      "run      {} steps: at least {:.3g} h\n"
      "saves    {} GiB per checkpoint, over all GPUs\n\n",
      p["global_batch"].get<int64_t>(), p["seq_len"].get<int64_t>(),
      p["recompute"].get<bool>() ? ", activations recomputed" : "", step_s,
      p["bound"].get<std::string>(), p["tokens_per_s"].get<double>(), 100 * p["mfu"].get<double>(),
      p["flop_per_step_and_gpu"].get<double>() / 1e12,
      p["bytes_per_step_and_gpu"].get<double>() / 1e9, describe_communication(p["communication"]),
      p["steps"].get<int64_t>(), p["run_seconds"].get<double>() / 3600, gib(p["checkpoint_bytes"]));
  constexpr const char* kRow = "{:<14} {:>7} {:>10} {:>7} {:>11} {:>9}  {}\n";
  text += fmt::format(kRow, "op", "calls", "ms", "share %", "GFLOP", "GB", "bound by");
  for (const Json& op : p["ops"]) {
    const double seconds = op["seconds"];
    text += fmt::format(kRow, op["op"].get<std::string>(), op["calls"].get<int64_t>(),
                        fmt::format("{:.3f}", 1e3 * seconds),
                        fmt::format("{:.1f}", 100 * seconds / p["gpu_seconds"].get<double>()),
                        fmt::format("{:.1f}", op["gflop"].get<double>()),
                        fmt::format("{:.2f}", op["gbytes"].get<double>()),
                        op["bound"].get<std::string>());
  }
  return text;
}

}  // namespace rodimus
