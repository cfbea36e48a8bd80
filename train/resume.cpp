#include "train/resume.h"

#include <algorithm>

#include "kernels/check.h"
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

  std::vector<std::string> problems;
  const auto found =
      find_checkpoint(resume == "auto" ? output : std::filesystem::path(resume), &problems);
  for (const std::string& problem : problems) note("damaged checkpoint passed over: " + problem);
  const CheckpointReader checkpoint(found);
  checkpoint.verify();
  // Otherwise the next automatic resume would go on from the other line of checkpoints.
  if (resume != "auto" && !present.empty()) {
    const int64_t newest = CheckpointReader(present.back()).state().step;
    if (newest > checkpoint.state().step) {
      fail("--resume ", resume, " is at step ", checkpoint.state().step, ", but run.output = \"",
           output.string(), "\" already holds step ", newest,
           "; choose another run.output, or remove the later checkpoints");
    }
  }
  return found;
}

void require_same_run(const Config& now, const CheckpointReader& checkpoint,
                      const std::string& tokenizer_hash) {
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
  if (!state.tokenizer_hash.empty() && !tokenizer_hash.empty()) {
    same("data.tokenizer", state.tokenizer_hash, tokenizer_hash);
  }
}

void restore(Exec& exec, const CheckpointReader& checkpoint, ParameterBuffers& buffers,
             AdamW& optimizer) {
  read_parameters(exec, checkpoint, buffers);
  const FlatLayout layout = layout_of(buffers);
  checkpoint.read("adam_m", layout, {0, layout.size}, optimizer.m().data<float>());
  checkpoint.read("adam_v", layout, {0, layout.size}, optimizer.v().data<float>());
}

}  // namespace rodimus
