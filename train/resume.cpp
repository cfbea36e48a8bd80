#include "train/resume.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "checkpoints/folders.h"
#include "kernels/check.h"
#include "kernels/reduce.h"
#include "train/config_schema.h"
#include "train/load_model.h"

namespace rodimus {
namespace {

template <class T>
void same(const char* key, const T& before, const T& now) {
  if (before == now) return;
  fail(key, " is ", now, ", but the checkpoint was written with ", before,
       "; set it back, or start a new run with another run.output");
}

}  // namespace

std::optional<std::filesystem::path> find_start(
    const Config& config, const std::string& resume,
    const std::function<void(const std::string&)>& note) {
  const std::filesystem::path output = config.run.output;
  const auto present = list_checkpoints(output);
  if (resume == "none") {
    if (present.empty()) return std::nullopt;
    fail("--resume none: ", output.string(), " already holds ", present.size(),
         " checkpoints; choose another run.output, remove them, or resume");
  }
  if (resume == "auto" && present.empty()) return std::nullopt;

  const std::filesystem::path wanted = resume == "auto" ? output : std::filesystem::path(resume);
  std::vector<std::string> problems;
  const auto found = find_checkpoint(wanted, &problems);
  for (const std::string& problem : problems) note("damaged checkpoint passed over: " + problem);
  if (found == wanted) CheckpointReader(found).verify();  // else it was picked because it is sound
  if (resume == "auto") return found;

  // With later checkpoints in run.output the next automatic resume would go on from those.
  const int64_t step = CheckpointReader(found).state().step;
  const auto newest =
      present.empty() ? std::nullopt : parse_step_folder(present.back().filename().string());
  if (newest && newest->step > step) {
    fail("--resume ", resume, " is at step ", step, ", but run.output = \"", output.string(),
         "\" already holds step ", newest->step,
         "; choose another run.output, or remove the later checkpoints");
  }
  return found;
}

std::vector<std::string> changed_keys(const Config& now, const CheckpointReader& checkpoint) {
  Config before = parse_config(checkpoint.state().config_toml, checkpoint.folder().string(), {});
  Config after = now;
  const auto old_fields = config_fields(before), new_fields = config_fields(after);
  constexpr std::array<std::string_view, 7> kHarmless = {
      "run.output",    "run.threads", "run.micro_batch", "run.peak_gflops",
      "run.log_every", "data.verify", "run.recompute"};
  std::vector<std::string> lines;
  for (size_t i = 0; i < new_fields.size(); ++i) {
    const std::string was = old_fields[i].toml_value(), is = new_fields[i].toml_value();
    const bool harmless =
        std::find(kHarmless.begin(), kHarmless.end(), new_fields[i].key()) != kHarmless.end();
    if (was != is && !harmless) {
      lines.push_back(concat(new_fields[i].key(), " is ", is, ", was ", was, " in the checkpoint"));
    }
  }
  return lines;
}

void require_same_run(const Config& now, const CheckpointReader& checkpoint) {
  const TrainState& state = checkpoint.state();
  const Config before =
      parse_config(state.config_toml, (checkpoint.folder() / "checkpoint.h5").string(), {});
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
