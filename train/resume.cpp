#include "train/resume.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "kernels/device.h"
#include "train/config/config_schema.h"
#include "train/run_state.h"
#include "train/schedule.h"

namespace rodimus {
namespace {

struct ModelValue {
  std::string key, value;
};

// What the model computes with, defaults resolved.
std::vector<ModelValue> values_of(const ModelConfig& c) {
  std::vector<ModelValue> values;
  const auto add = [&](const char* key, const auto& value) {
    values.push_back({concat("model.", key), concat(value)});
  };
  add("block", c.plus() ? "rodimus_plus" : "rodimus");
  add("vocab_size", c.vocab_size);
  add("d_model", c.d_model);
  add("n_layers", c.n_layers);
  add("mem_size", c.mem_size);
  add("conv_width", c.conv_width);
  add("d_inner", c.d_inner());
  add("gate_rank", c.rank());
  add("tied", c.tied ? "true" : "false");
  add("norm_eps", toml_number(c.norm_eps));
  add("key_norm_eps", toml_number(c.key_norm_eps));
  if (!c.plus()) return values;
  add("n_heads", c.n_heads);
  add("n_heads_k", c.n_heads_k);
  add("n_heads_v", c.heads_v());
  add("window", c.window == kFullWindow ? "\"full\"" : concat(c.window));
  add("d_ff", c.d_ff());
  add("rope_base", toml_number(c.rope_base));
  return values;
}

// Those of `now` that are others, or not there, in `before`.
struct Difference {
  std::string key, before, now;
};
std::vector<Difference> differences(const std::vector<ModelValue>& before,
                                    const std::vector<ModelValue>& now) {
  std::vector<Difference> found;
  for (const ModelValue& value : now) {
    const auto same_key = [&](const ModelValue& other) { return other.key == value.key; };
    const auto was = std::find_if(before.begin(), before.end(), same_key);
    if (was != before.end() && was->value != value.value)
      found.push_back({value.key, was->value, value.value});
  }
  return found;
}

void same(const char* key, const std::string& before, const std::string& now) {
  if (before == now) return;
  fail(key, " is ", now, ", but the checkpoint was written with ", before,
       "; set it back, or start a new run with another run.output");
}

std::string change(const std::string& key, const std::string& was, const std::string& is) {
  return concat(key, " is ", is, ", was ", was, " in the checkpoint");
}

}  // namespace

std::vector<std::string> keep_resolved(Config& now, const CheckpointReader& checkpoint,
                                       bool other_compute) {
  const RunConfig before = config_of(checkpoint).run;
  std::vector<std::string> lines;
  // Checkpoints of version 0.1 may hold "auto".
  if (before.compute != "auto" && !other_compute) {
    if (now.run.compute == "auto") now.run.compute = before.compute;
    if (now.run.compute != before.compute) {
      fail("run.compute = \"", now.run.compute, "\", but the run has computed in ", before.compute,
           " (", checkpoint.folder().string(), "); set run.compute to \"", before.compute,
           "\" or \"auto\", or say --allow-other-compute to go on in ", now.run.compute);
    }
  }
  if (before.device != "auto" && now.run.device == "auto") {
    const Gpus gpus = find_gpus();
    if (before.device == "cuda" && gpus.count == 0) {
      fail("the run has computed on a GPU (", checkpoint.folder().string(),
           "), and here is none: ", gpus.reason,
           "; set run.device=cpu to go on on the CPU, where numbers round otherwise");
    }
    if (before.device == "cpu" && gpus.count > 0)
      lines.emplace_back("on the CPU as before; set run.device=cuda to go on on the GPU");
    now.run.device = before.device;
  }
  return lines;
}

RateChange rate_change(const Config& before, const Config& now, int64_t step) {
  if (step < 1 || step >= now.run.steps) return {};
  const double last = learning_rate(before.optimizer, before.run.steps, step - 1);
  const double next = learning_rate(now.optimizer, now.run.steps, step);
  const double planned = learning_rate(before.optimizer, before.run.steps, step);
  constexpr double kTenth = 0.1;
  // Within a schedule a warm-up may well double the rate.
  const bool jump = std::abs(next - last) > kTenth * last && next != planned;
  return {fmt::format("learning rate {:.3g} in the last step, {:.3g} in the next", last, next),
          jump};
}

std::vector<std::string> changed_keys(const Config& now, const CheckpointReader& checkpoint) {
  Config before = config_of(checkpoint), after = now;
  const auto old_fields = config_fields(before), new_fields = config_fields(after);
  constexpr std::array<std::string_view, 6> kHarmless = {"run.output",      "run.threads",
                                                         "run.peak_gflops", "run.log_every",
                                                         "data.verify",     "run.recompute"};
  // These change the order of sums: other bits, the same numbers up to rounding.
  constexpr std::array<std::string_view, 2> kRounding = {"run.micro_batch", "run.device"};
  const auto among = [](const auto& keys, const std::string& key) {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  };
  std::vector<std::string> lines;
  for (size_t i = 0; i < new_fields.size(); ++i) {
    const std::string key = new_fields[i].key();
    if (old_fields[i].toml_value() == new_fields[i].toml_value() || among(kHarmless, key)) continue;
    lines.push_back(change(key, old_fields[i].toml_value(), new_fields[i].toml_value()) +
                    (among(kRounding, key) ? ": results may differ by rounding" : ""));
  }
  return lines;
}

std::vector<std::string> changed_model_keys(const Config& now, const CheckpointReader& checkpoint) {
  std::vector<std::string> lines;
  const auto before = values_of(config_of(checkpoint).model);
  for (const Difference& d : differences(before, values_of(now.model)))
    lines.push_back(change(d.key, d.before, d.now));
  return lines;
}

void require_same_run(const Config& now, const CheckpointReader& checkpoint) {
  const Config before = config_of(checkpoint);
  for (const Difference& d : differences(values_of(before.model), values_of(now.model)))
    same(d.key.c_str(), d.before, d.now);
  same("run.seed", concat(before.run.seed), concat(now.run.seed));
  same("data.seq_len", concat(before.data.seq_len), concat(now.data.seq_len));
  same("data.shuffle", before.data.shuffle ? "true" : "false", now.data.shuffle ? "true" : "false");
}

}  // namespace rodimus
