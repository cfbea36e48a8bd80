#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "layers/blocks.h"
#include "train/report/bench.h"
#include "train/report/memory_json.h"

namespace rodimus {
namespace {

using Json = nlohmann::ordered_json;

double mib(double bytes) { return bytes / (1 << 20); }
double mib(int64_t bytes) { return mib(static_cast<double>(bytes)); }

std::string unless_zero(const char* format, double value) {
  return value > 0 ? fmt::format(fmt::runtime(format), value) : "";
}

std::string describe(const BenchTable& ops) {
  constexpr const char* kRow = "{:<22} {:<10} {:>6} {:>10} {:>7} {:>9} {:>9} {:>7} {:>11}\n";
  std::string text = fmt::format(kRow, "op", "phase", "calls", "ms", "share %", "GFLOP", "MB",
                                 "GEMM %", "bandwidth %");
  double seconds = 0, flop = 0;
  for (const auto& [row, share, gemm_share, bandwidth_share] : ops) {
    seconds += row.seconds;
    if (row.phase != Profile::Phase::recomputed) flop += row.cost.flop;
    text += fmt::format(
        kRow, label_of(row.op), name_of(row.phase), row.calls,
        fmt::format("{:.3f}", 1e3 * row.seconds), fmt::format("{:.1f}", 100 * share),
        unless_zero("{:.3f}", row.cost.flop / 1e9), unless_zero("{:.2f}", row.cost.bytes / 1e6),
        unless_zero("{:.1f}", 100 * gemm_share), unless_zero("{:.1f}", 100 * bandwidth_share));
  }
  return text + fmt::format(kRow, "total", "", "", fmt::format("{:.3f}", 1e3 * seconds), "100.0",
                            fmt::format("{:.3f}", flop / 1e9), "", "", "");
}

std::string describe(const TrainingBench& t) {
  const TrainingMemory& parts = t.predicted;
  const double peak = static_cast<double>(t.allocator_peak),
               predicted = static_cast<double>(parts.total());
  return fmt::format(
             "step     {} sequences of {} tokens in {:.3f} s, median of {}: {:.0f} tokens/s, "
             "{:.1f} GFLOP/s, MFU {:.1f} %{}\n",
             t.global_batch, t.seq_len, t.step_s, t.steps, t.tokens_per_s(), t.gflops(),
             100 * t.mfu(), t.recompute ? ", activations recomputed" : "") +
         fmt::format(
             "memory   peak {:.1f} MiB, predicted {:.1f} MiB ({:+.1f} %); process {:.1f} "
             "MiB\n",
             mib(peak), mib(predicted), 100 * (predicted / peak - 1), mib(t.process_bytes)) +
         fmt::format(
             "         predicted: parameters {:.1f}, gradients {:.1f}, moments {:.1f}, "
             "activations {:.1f}, workspace {:.1f} MiB\n\n",
             mib(parts.parameters), mib(parts.gradients), mib(parts.moments),
             mib(parts.activations), mib(parts.workspace)) +
         describe(t.ops);
}

std::string describe(const DecodeBench& d) {
  std::string text = fmt::format(
      "decode   {:.1f} MB of weights per token, {:.3f} ms at triad "
      "bandwidth\n",
      d.weight_bytes_per_token / 1e6, 1e3 * d.limit_s);
  for (const auto& p : d.positions) {
    text += fmt::format(
        "         position {:>5}: {:.1f} tokens/s, {:.3f} ms, {:.1f} % of the "
        "limit, state {:.2f} MiB\n",
        p.position, 1 / p.token_s, 1e3 * p.token_s, 100 * d.limit_s / p.token_s,
        mib(p.state_bytes));
  }
  for (const auto& p : d.positions)
    text += fmt::format("\nposition {}\n{}", p.position, describe(p.ops));
  return text;
}

Json to_json(const BenchTable& ops) {
  Json json = Json::array();
  for (const auto& [row, share, gemm_share, bandwidth_share] : ops) {
    json.push_back({{"op", label_of(row.op)},
                    {"phase", name_of(row.phase)},
                    {"calls", row.calls},
                    {"seconds", row.seconds},
                    {"share", share},
                    {"gflop", row.cost.flop / 1e9},
                    {"mbytes", row.cost.bytes / 1e6},
                    {"gemm_share", gemm_share},
                    {"bandwidth_share", bandwidth_share}});
  }
  return json;
}

Json to_json(const TrainingBench& t) {
  return {{"global_batch", t.global_batch},
          {"micro_batch", t.micro_batch},
          {"seq_len", t.seq_len},
          {"recompute", t.recompute},
          {"steps", t.steps},
          {"step_s", t.step_s},
          {"tokens_per_s", t.tokens_per_s()},
          {"gflop_per_step", t.flop / 1e9},
          {"gflops", t.gflops()},
          {"mfu", t.mfu()},
          {"memory",
           {{"allocator_peak_bytes", t.allocator_peak},
            {"process_bytes", t.process_bytes},
            {"predicted_bytes", t.predicted.total()},
            {"predicted", to_json(t.predicted)}}},
          {"ops", to_json(t.ops)}};
}

Json to_json(const DecodeBench& d) {
  Json json{{"weight_bytes_per_token", d.weight_bytes_per_token}, {"limit_s", d.limit_s}};
  for (const auto& p : d.positions) {
    json["positions"].push_back({{"position", p.position},
                                 {"token_s", p.token_s},
                                 {"tokens_per_s", 1 / p.token_s},
                                 {"limit_share", d.limit_s / p.token_s},
                                 {"state_bytes", p.state_bytes},
                                 {"ops", to_json(p.ops)}});
  }
  return json;
}

}  // namespace

BenchTable table_of(const Profile& profile, double gemm_gflops, double triad_gb_per_s) {
  std::vector<Profile::Row> rows(profile.rows().begin(), profile.rows().end());
  std::stable_sort(rows.begin() + 1, rows.end(),
                   [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  std::rotate(rows.begin(), rows.begin() + 1, rows.end());
  BenchTable table;
  for (const Profile::Row& row : rows) {
    const double seconds = std::max(row.seconds, 1e-9);
    table.push_back({.row = row,
                     .share = row.seconds / profile.seconds(),
                     .gemm_share = row.cost.flop / 1e9 / seconds / gemm_gflops,
                     .bandwidth_share = row.cost.bytes / 1e9 / seconds / triad_gb_per_s});
  }
  return table;
}

Json to_json(const Bench& result) {
  const MachineRates& machine = result.machine;
  Json json{{"model", result.block},
            {"parameters", result.parameters},
            {"compute", name_of(result.compute)},
            {"compute_reason", result.compute_reason},
            {"ranks", result.ranks},
            {"device", result.device},
            {"machine",
             {{"gemm_f32_gflops", machine.gemm_f32},
              {"gemm_bf16_gflops", machine.gemm_bf16 > 0 ? Json(machine.gemm_bf16) : Json()},
              {"triad_gb_per_s", machine.triad}}}};
  if (result.training) json["training"] = to_json(*result.training);
  if (result.decode) json["decode"] = to_json(*result.decode);
  return json;
}

std::string describe(const Bench& result) {
  const MachineRates& machine = result.machine;
  std::string text =
      fmt::format("{}, {} parameters, {}, {} ranks, each with {}\n", block_type(result.block).title,
                  result.parameters, result.compute_reason, result.ranks, result.device);
  text += fmt::format("machine  GEMM f32 {:.1f} GFLOP/s, bf16 {}; triad {:.1f} GB/s\n",
                      machine.gemm_f32,
                      machine.gemm_bf16 > 0 ? fmt::format("{:.1f} GFLOP/s", machine.gemm_bf16)
                                            : "not native: computed in f32",
                      machine.triad);
  if (result.training) text += describe(*result.training);
  if (result.decode) text += describe(*result.decode);
  return text;
}

}  // namespace rodimus
