#include "train/resume.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/check.h"
#include "kernels/device.h"
#include "kernels/reduce.h"
#include "train/config_schema.h"
#include "train/load_model.h"
#include "train/schedule.h"

namespace rodimus {
namespace {

template <class T>
void same(const char* key, const T& before, const T& now) {
  if (before == now) return;
  fail(key, " is ", now, ", but the checkpoint was written with ", before,
       "; set it back, or start a new run with another run.output");
}

std::string change(const ConfigField& is, const ConfigField& was) {
  return concat(is.key(), " is ", is.toml_value(), ", was ", was.toml_value(),
                " in the checkpoint");
}

}  // namespace

Config config_of(const CheckpointReader& checkpoint) {
  return parse_config(checkpoint.state().config_toml,
                      (checkpoint.folder() / "checkpoint.h5").string(), {});
}

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
  constexpr std::array<std::string_view, 5> kHarmless = {
      "run.output", "run.peak_gflops", "run.log_every", "data.verify", "run.recompute"};
  // These change the order of sums: other bits, the same numbers up to rounding.
  constexpr std::array<std::string_view, 3> kRounding = {"run.threads", "run.micro_batch",
                                                         "run.device"};
  const auto among = [](const auto& keys, const std::string& key) {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  };
  std::vector<std::string> lines;
  for (size_t i = 0; i < new_fields.size(); ++i) {
    const std::string key = new_fields[i].key();
    if (old_fields[i].toml_value() == new_fields[i].toml_value() || among(kHarmless, key)) continue;
    lines.push_back(change(new_fields[i], old_fields[i]) +
                    (among(kRounding, key) ? ": results may differ by rounding" : ""));
  }
  return lines;
}

std::vector<std::string> changed_model_keys(const Config& now, const CheckpointReader& checkpoint) {
  Config before = config_of(checkpoint), after = now;
  const auto old_fields = config_fields(before), new_fields = config_fields(after);
  std::vector<std::string> lines;
  for (size_t i = 0; i < new_fields.size(); ++i) {
    if (new_fields[i].section != "model") continue;
    if (old_fields[i].toml_value() != new_fields[i].toml_value())
      lines.push_back(change(new_fields[i], old_fields[i]));
  }
  return lines;
}

void require_same_run(const Config& now, const CheckpointReader& checkpoint) {
  const Config before = config_of(checkpoint);
  const ModelConfig &a = before.model, &b = now.model;
  same("model.block", a.plus() ? "rodimus_plus" : "rodimus", b.plus() ? "rodimus_plus" : "rodimus");
  same("model.vocab_size", a.vocab_size, b.vocab_size);
  same("model.d_model", a.d_model, b.d_model);
  same("model.n_layers", a.n_layers, b.n_layers);
  same("model.mem_size", a.mem_size, b.mem_size);
  same("model.conv_width", a.conv_width, b.conv_width);
  same("model.d_inner", a.d_inner(), b.d_inner());
  same("model.gate_rank", a.rank(), b.rank());
  same("model.tied", a.tied, b.tied);
  same("model.norm_eps", a.norm_eps, b.norm_eps);
  same("model.key_norm_eps", a.key_norm_eps, b.key_norm_eps);
  if (b.plus()) {
    same("model.n_heads", a.n_heads, b.n_heads);
    same("model.n_heads_k", a.n_heads_k, b.n_heads_k);
    same("model.n_heads_v", a.heads_v(), b.heads_v());
    same("model.window", a.window, b.window);
    same("model.d_ff", a.d_ff(), b.d_ff());
    same("model.rope_base", a.rope_base, b.rope_base);
  }
  same("run.seed", before.run.seed, now.run.seed);
  same("data.seq_len", before.data.seq_len, now.data.seq_len);
  same("data.shuffle", before.data.shuffle, now.data.shuffle);
}

void restore(Exec& exec, const CheckpointReader& checkpoint, ParameterBuffers& buffers,
             AdamW& optimizer) {
  read_parameters(exec, checkpoint, buffers);
  const FlatLayout layout = layout_of(buffers);
  read_array(exec, checkpoint, "adam_m", layout, optimizer.m());
  read_array(exec, checkpoint, "adam_v", layout, optimizer.v());
  for (Tensor* moments : {&optimizer.m(), &optimizer.v()}) {
    double squares = 0;
    on_device(exec, [&](auto& backend) {
      squares = sum_of_squares(backend, std::as_const(*moments).data<float>(), moments->numel());
    });
    if (!std::isfinite(squares)) {
      fail(checkpoint.folder().string(),
           ": the moments of AdamW are not finite; use an earlier checkpoint");
    }
  }
}

}  // namespace rodimus
