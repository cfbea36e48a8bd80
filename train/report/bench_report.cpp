#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "layers/blocks.h"
#include "train/report/bench.h"

namespace rodimus {
namespace {

using Json = nlohmann::ordered_json;

double mib(const Json& bytes) { return bytes.get<double>() / (1 << 20); }

std::string percent(const Json& share) {  // nothing where a row has no FLOPs or bytes
  return share.get<double>() > 0 ? fmt::format("{:.1f}", 100 * share.get<double>()) : "";
}

std::string table(const Json& ops) {
  constexpr const char* kRow = "{:<22} {:<10} {:>6} {:>10} {:>7} {:>9} {:>9} {:>7} {:>11}\n";
  std::string text = fmt::format(kRow, "op", "phase", "calls", "ms", "share %", "GFLOP", "MB",
                                 "GEMM %", "bandwidth %");
  double seconds = 0, gflop = 0;
  for (const Json& op : ops) {
    seconds += op["seconds"].get<double>();
    if (op["phase"] != "recomputed") gflop += op["gflop"].get<double>();
    text += fmt::format(kRow, op["op"].get<std::string>(), op["phase"].get<std::string>(),
                        op["calls"].get<int64_t>(),
                        fmt::format("{:.3f}", 1e3 * op["seconds"].get<double>()),
                        fmt::format("{:.1f}", 100 * op["share"].get<double>()),
                        op["gflop"] > 0 ? fmt::format("{:.3f}", op["gflop"].get<double>()) : "",
                        op["mbytes"] > 0 ? fmt::format("{:.2f}", op["mbytes"].get<double>()) : "",
                        percent(op["gemm_share"]), percent(op["bandwidth_share"]));
  }
  return text + fmt::format(kRow, "total", "", "", fmt::format("{:.3f}", 1e3 * seconds), "100.0",
                            fmt::format("{:.3f}", gflop), "", "", "");
}

std::string training(const Json& t) {
  const Json &memory = t["memory"], &parts = memory["predicted"];
  const double peak = memory["allocator_peak_bytes"], predicted = memory["predicted_bytes"];
  return fmt::format(
             "step     {} sequences of {} tokens in {:.3f} s, median of {}: {:.0f} tokens/s, "
             "{:.1f} GFLOP/s, MFU {:.1f} %{}\n",
             t["global_batch"].get<int64_t>(), t["seq_len"].get<int64_t>(),
             t["step_s"].get<double>(), t["steps"].get<int64_t>(), t["tokens_per_s"].get<double>(),
             t["gflops"].get<double>(), 100 * t["mfu"].get<double>(),
             t["recompute"].get<bool>() ? ", activations recomputed" : "") +
         fmt::format(
             "memory   peak {:.1f} MiB, predicted {:.1f} MiB ({:+.1f} %); process {:.1f} "
             "MiB\n",
             mib(peak), mib(predicted), 100 * (predicted / peak - 1),
             mib(memory["process_bytes"])) +
         fmt::format(
             "         predicted: parameters {:.1f}, gradients {:.1f}, moments {:.1f}, "
             "activations {:.1f}, workspace {:.1f} MiB\n\n",
             mib(parts["parameters_bytes"]), mib(parts["gradients_bytes"]),
             mib(parts["moments_bytes"]), mib(parts["activations_bytes"]),
             mib(parts["workspace_bytes"])) +
         table(t["ops"]);
}

std::string decode(const Json& d) {
  std::string text = fmt::format(
      "decode   {:.1f} MB of weights per token, {:.3f} ms at triad "
      "bandwidth\n",
      d["weight_bytes_per_token"].get<double>() / 1e6, 1e3 * d["limit_s"].get<double>());
  for (const Json& p : d["positions"]) {
    text += fmt::format(
        "         position {:>5}: {:.1f} tokens/s, {:.3f} ms, {:.1f} % of the "
        "limit, state {:.2f} MiB\n",
        p["position"].get<int64_t>(), p["tokens_per_s"].get<double>(),
        1e3 * p["token_s"].get<double>(), 100 * p["limit_share"].get<double>(),
        mib(p["state_bytes"]));
  }
  for (const Json& p : d["positions"])
    text += fmt::format("\nposition {}\n{}", p["position"].get<int64_t>(), table(p["ops"]));
  return text;
}

}  // namespace

Json table_of(const Profile& profile, double gemm_gflops, double triad_gb_per_s) {
  std::vector<Profile::Row> rows(profile.rows().begin(), profile.rows().end());
  std::stable_sort(rows.begin() + 1, rows.end(),
                   [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  std::rotate(rows.begin(), rows.begin() + 1, rows.end());
  const double total = profile.seconds();
  Json ops = Json::array();
  for (const Profile::Row& row : rows) {
    const double seconds = std::max(row.seconds, 1e-9);
    ops.push_back({{"op", label_of(row.op)},
                   {"phase", name_of(row.phase)},
                   {"calls", row.calls},
                   {"seconds", row.seconds},
                   {"share", row.seconds / total},
                   {"gflop", row.cost.flop / 1e9},
                   {"mbytes", row.cost.bytes / 1e6},
                   {"gemm_share", row.cost.flop / 1e9 / seconds / gemm_gflops},
                   {"bandwidth_share", row.cost.bytes / 1e9 / seconds / triad_gb_per_s}});
  }
  return ops;
}

std::string describe_bench(const Json& result) {
  const Json& machine = result["machine"];
  const Json& bf16 = machine["gemm_bf16_gflops"];
  std::string text =
      fmt::format("{}, {} parameters, {}, {} ranks, each with {}\n",
                  block_type(result["model"].get<std::string>()).title,
                  result["parameters"].get<int64_t>(), result["compute_reason"].get<std::string>(),
                  result["ranks"].get<int64_t>(), result["device"].get<std::string>());
  text += fmt::format("machine  GEMM f32 {:.1f} GFLOP/s, bf16 {}; triad {:.1f} GB/s\n",
                      machine["gemm_f32_gflops"].get<double>(),
                      bf16.is_null() ? "not native: computed in f32"
                                     : fmt::format("{:.1f} GFLOP/s", bf16.get<double>()),
                      machine["triad_gb_per_s"].get<double>());
  if (result.contains("training")) text += training(result["training"]);
  if (result.contains("decode")) text += decode(result["decode"]);
  return text;
}

}  // namespace rodimus
