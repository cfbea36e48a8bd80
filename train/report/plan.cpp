#include "train/report/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "layers/blocks.h"
#include "train/report/memory_json.h"

namespace rodimus {
namespace {

using Json = nlohmann::ordered_json;
using Phase = Profile::Phase;

struct Rates {
  double flops, bandwidth;  // per second
};

void add(PlannedOp& op, const Cost& cost, const Rates& rates) {
  const double compute = cost.flop / rates.flops, memory = cost.bytes / rates.bandwidth;
  op.flop += cost.flop;
  op.bytes += cost.bytes;
  op.seconds += std::max(compute, memory);
  if (compute > memory) op.compute_seconds += compute;
}

Cost times(const Cost& cost, int64_t n) {
  return {cost.flop * static_cast<double>(n), cost.bytes * static_cast<double>(n)};
}

// What a lower bound leaves out: the additions of gradients that reach one slot from several ops
// could be fused into those ops, and the sum over ranks is PlannedSum.
bool is_left_out(std::string_view name) { return name == "gradient add" || name == "all-reduce"; }

// Slowest first.
std::vector<PlannedOp> ops_of(const DryStep& step, const Rates& rates) {
  std::map<std::string, PlannedOp> by_name;
  for (const Profile::Row& row : step.rows) {
    if (is_left_out(row.op.name)) continue;
    if (row.cost.flop == 0 && row.cost.bytes == 0) continue;  // a scope that wraps others
    // Done once per step: zeroing the gradients, their norm, the update.
    const std::string name = row.phase == Phase::step ? "optimizer" : std::string(row.op.name);
    PlannedOp& op = by_name[name];
    op.name = name;
    if (row.phase == Phase::forward || row.phase == Phase::forward_backward) op.calls += row.calls;
    if (row.phase == Phase::step) op.calls = 1;
    if (row.phase == Phase::forward_backward) {
      add(op, times(row.op.forward, row.calls), rates);
      add(op, times(row.op.backward, row.calls), rates);
    } else {
      add(op, row.cost, rates);
    }
  }
  std::vector<PlannedOp> ops;
  for (auto& [name, op] : by_name) ops.push_back(std::move(op));
  std::stable_sort(ops.begin(), ops.end(),
                   [](const auto& x, const auto& y) { return x.seconds > y.seconds; });
  return ops;
}

// A lower bound for the time of an all-reduce, whatever the algorithm, with nodes filled in order.
// It is the larger of two bounds, each assuming perfect overlap:
// - What leaves the GPUs, over NVLink and each one's NIC: 2 (n - 1) times the buffer from all of
//   them together, as each element is added n - 1 times and passed on n - 1 times. If the node's
//   switches do this, a GPU still sends every element once.
// - What leaves the nodes, each with a NIC for every GPU: 2 (m - 1) times the buffer from m nodes,
//   and the whole buffer at least once from each, even from one with fewer GPUs.
PlannedSum sum_of_gradients(const GpuSheet& gpu, const PlanOptions& options,
                            double gradient_bytes) {
  const double n = options.gpus, nic = options.network_gbit_per_s / 8 * 1e9;
  PlannedSum sum;
  sum.nodes = (options.gpus + gpu.per_node - 1) / gpu.per_node;
  sum.gpus_of_last_node = options.gpus - (sum.nodes - 1) * gpu.per_node;
  sum.nvlink_gb_per_s = gpu.nvlink_gb_per_s;
  sum.network_gb_per_s_per_node = nic / 1e9 * std::min(gpu.per_node, options.gpus);
  if (options.gpus > 1) {
    sum.sent_bytes_per_gpu = gpu.switch_adds ? gradient_bytes : 2 * (n - 1) / n * gradient_bytes;
    sum.node_seconds =
        sum.sent_bytes_per_gpu / (gpu.nvlink_gb_per_s * 1e9 + (sum.nodes > 1 ? nic : 0));
  }
  if (sum.nodes > 1) {
    sum.sent_bytes_over_network = 2.0 * (sum.nodes - 1) * gradient_bytes;
    sum.network_seconds = std::max(sum.sent_bytes_over_network / (n * nic),
                                   gradient_bytes / (sum.gpus_of_last_node * nic));
  }
  sum.seconds = std::max(sum.node_seconds, sum.network_seconds);
  if (sum.seconds > 0) sum.bus_gb_per_s = 2 * (n - 1) / n * gradient_bytes / sum.seconds / 1e9;
  return sum;
}

Json to_json(const PlannedSum& sum) {
  return {{"nodes", sum.nodes},
          {"gpus_of_last_node", sum.gpus_of_last_node},
          {"assumed", "no sums in network switches; nodes filled one after the other"},
          {"sent_bytes_per_gpu", sum.sent_bytes_per_gpu},
          {"nvlink_gb_per_s", sum.nvlink_gb_per_s},
          {"node_seconds", sum.node_seconds},
          {"sent_bytes_over_network", sum.sent_bytes_over_network},
          {"network_gb_per_s_per_node", sum.network_gb_per_s_per_node},
          {"network_seconds", sum.network_seconds},
          {"seconds", sum.seconds},
          {"bus_gb_per_s", sum.bus_gb_per_s ? Json(*sum.bus_gb_per_s) : Json()}};
}

std::string describe(const PlannedSum& sum) {
  if (!sum.bus_gb_per_s) return "";
  std::string text = fmt::format("sum      of gradients: {:.4g} GB leave each GPU, {:.4g} s",
                                 sum.sent_bytes_per_gpu / 1e9, sum.node_seconds);
  if (sum.nodes > 1) {
    text += fmt::format(
        "; {:.4g} GB leave {} nodes at {:.0f} GB/s each (GPUs of the last: {}), "
        "{:.4g} s",
        sum.sent_bytes_over_network / 1e9, sum.nodes, sum.network_gb_per_s_per_node,
        sum.gpus_of_last_node, sum.network_seconds);
  }
  return text + fmt::format("; bus bandwidth at most {:.0f} GB/s\n", *sum.bus_gb_per_s);
}

std::string gib(int64_t bytes) {
  return fmt::format("{:.2f}", static_cast<double>(bytes) / (1 << 30));
}

const char* bound_of(const PlannedOp& op) { return op.flop_bound() ? "FLOPs" : "memory"; }

Json to_json(const PlannedOp& op) {
  return {{"op", op.name},          {"calls", op.calls},        {"seconds", op.seconds},
          {"gflop", op.flop / 1e9}, {"gbytes", op.bytes / 1e9}, {"bound", bound_of(op)}};
}

std::string describe_memory(const Plan& plan, bool recompute) {
  const TrainingMemory& m = recompute ? plan.memory_with_recompute : plan.memory;
  return fmt::format(
      "memory   {} GiB per GPU {}: parameters {}, gradients {}, moments {}, activations {}, "
      "workspace {}{}\n",
      gib(m.total()), recompute ? "with recomputation   " : "without recomputation",
      gib(m.parameters), gib(m.gradients), gib(m.moments), gib(m.activations), gib(m.workspace),
      plan.fits(m) ? "" : fmt::format(": does NOT fit {:.0f} GB", plan.gpu.memory_gb));
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

Plan plan(const Config& written, const PlanOptions& options) {
  if (options.gpus < 1) fail("--gpus ", options.gpus, ": need 1 or more");
  if (!(options.network_gbit_per_s > 0))
    fail("--network ", options.network_gbit_per_s, ": need a rate above 0 in Gbit/s");
  if (written.model.vocab_size == 0)
    fail("plan: model.vocab_size is not set: add --set model.vocab_size=N");
  Plan plan{
      .config = resolve(written, {.device = Device::cuda, .ranks = options.gpus}),
      .gpu = gpu_sheet(options.gpu),
  };
  const ResolvedConfig& config = plan.config;
  const auto step = [&](bool recompute) {
    return dry_step(config.model, {Cuda{}}, config.compute,
                    {.B = config.run.micro_batch,
                     .T = config.data.seq_len,
                     .micro_batches = config.micro_batches(),
                     .recompute = recompute,
                     .documents = config.data.reset_documents},
                    config.optimizer);
  };
  const DryStep without = step(false), with = step(true);
  plan.parameters = without.parameters;
  plan.memory = without.memory;
  plan.memory_with_recompute = with.memory;
  plan.useful_flop = without.useful_flop();
  plan.ops = ops_of(config.run.recompute ? with : without,
                    {plan.flop_per_s(), plan.gpu.memory_gb_per_s * 1e9});
  for (const PlannedOp& op : plan.ops) {
    plan.all.flop += op.flop;
    plan.all.bytes += op.bytes;
    plan.all.seconds += op.seconds;
    plan.all.compute_seconds += op.compute_seconds;
  }
  plan.sum = sum_of_gradients(plan.gpu, options, 4.0 * static_cast<double>(plan.parameters));
  plan.step_seconds = std::max(plan.all.seconds, plan.sum.seconds);
  return plan;
}

double Plan::flop_per_s() const {
  return (config.compute == DType::bf16 ? gpu.bf16_tflops : gpu.f32_tflops) * 1e12;
}

double Plan::tokens_per_s() const {
  return static_cast<double>(config.tokens_per_step()) / step_seconds;
}

std::string Plan::bound() const {
  return sum.seconds > all.seconds ? "communication" : bound_of(all);
}

Json to_json(const Plan& p) {
  Json memory, ops = Json::array();
  for (const bool recompute : {false, true}) {
    const TrainingMemory& bytes = recompute ? p.memory_with_recompute : p.memory;
    Json& entry = memory[recompute ? "with_recompute" : "without_recompute"] = to_json(bytes);
    entry["fits"] = p.fits(bytes);
  }
  for (const PlannedOp& op : p.ops) ops.push_back(to_json(op));
  return {{"what", "modelled lower bound from data sheets, never run on a GPU"},
          {"model", p.config.model.block},
          {"parameters", p.parameters},
          {"gpu", p.gpu.full_name},
          {"gpus", p.config.ranks},
          {"compute", name_of(p.config.compute)},
          {"global_batch", p.config.run.global_batch},
          {"micro_batch", p.config.run.micro_batch},
          {"seq_len", p.config.data.seq_len},
          {"recompute", p.config.run.recompute},
          {"memory_gb", p.gpu.memory_gb},
          {"memory_per_gpu", memory},
          {"flop_per_step_and_gpu", p.all.flop},
          {"bytes_per_step_and_gpu", p.all.bytes},
          {"communication", to_json(p.sum)},
          {"gpu_seconds", p.all.seconds},
          {"step_seconds", p.step_seconds},
          {"bound", p.bound()},
          {"tokens_per_s", p.tokens_per_s()},
          {"mfu", p.mfu()},
          {"run_seconds", p.step_seconds * static_cast<double>(p.config.run.steps)},
          {"steps", p.config.run.steps},
          {"checkpoint_bytes", p.checkpoint_bytes()},
          {"ops", ops}};
}

std::string describe(const Plan& p) {
  std::string text = fmt::format(
      "{}, {} parameters, {} on {} x {}\n"
      "A model, not a measurement: lower bounds from data sheets. Real steps take longer.\n\n",
      block_type(p.config.model.block).title, p.parameters, name_of(p.config.compute),
      p.config.ranks, p.gpu.full_name);
  text += describe_memory(p, false) + describe_memory(p, true);
  text += fmt::format(
      "step     {} sequences of {} tokens{}: at least {:.4g} s, bound by {}; at most {:.0f} "
      "tokens/s, MFU {:.1f} %\n"
      "         per GPU {:.4g} TFLOP, {:.4g} GB of memory traffic\n"
      "{}"
      "run      {} steps: at least {:.3g} h\n"
      "saves    {} GiB per checkpoint, over all GPUs\n\n",
      p.config.run.global_batch, p.config.data.seq_len,
      p.config.run.recompute ? ", activations recomputed" : "", p.step_seconds, p.bound(),
      p.tokens_per_s(), 100 * p.mfu(), p.all.flop / 1e12, p.all.bytes / 1e9, describe(p.sum),
      p.config.run.steps, p.step_seconds * static_cast<double>(p.config.run.steps) / 3600,
      gib(p.checkpoint_bytes()));
  constexpr const char* kRow = "{:<14} {:>7} {:>10} {:>7} {:>11} {:>9}  {}\n";
  text += fmt::format(kRow, "op", "calls", "ms", "share %", "GFLOP", "GB", "bound by");
  for (const PlannedOp& op : p.ops) {
    text += fmt::format(kRow, op.name, op.calls, fmt::format("{:.3f}", 1e3 * op.seconds),
                        fmt::format("{:.1f}", 100 * op.seconds / p.all.seconds),
                        fmt::format("{:.1f}", op.flop / 1e9), fmt::format("{:.2f}", op.bytes / 1e9),
                        bound_of(op));
  }
  return text;
}

}  // namespace rodimus
