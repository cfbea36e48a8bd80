#include "train/load_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"
#include "kernels/memory.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

void require_finite(Exec& exec, const ParameterBuffers& buffers, const fs::path& folder) {
  for (const Parameter* p : buffers.parameters) {
    const Tensor host = on_host(exec, p->var.value);
    const float* x = host.data<float>();
    const int64_t n = numel_of(p->shape);
    const float* bad = std::find_if_not(x, x + n, [](float value) { return std::isfinite(value); });
    if (bad == x + n) continue;
    fail(folder.native(), ": element ", bad - x, " of ", p->name, " is ", *bad,
         "; the run had diverged, use an earlier checkpoint");
  }
}

}  // namespace

FlatLayout layout_of(const ParameterBuffers& buffers) {
  FlatLayout layout;
  layout.size = buffers.values.numel();
  for (const Parameter* p : buffers.parameters)
    layout.tensors.push_back({p->name, p->shape, p->offset});
  return layout;
}

fs::path find_checkpoint(const fs::path& path, std::vector<std::string>* problems) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) fail("no checkpoint at ", path.native(), ": it does not exist");
  if (fs::exists(path / "checkpoint.h5", ignored)) return path;
  std::vector<std::string> found;
  const auto folder = newest_sound_checkpoint(path, &found);
  if (!folder && !found.empty()) {
    fail(path.native(), ": none of its ", found.size(),
         " checkpoints is sound; the newest: ", found.front());
  }
  if (problems) *problems = std::move(found);
  if (folder) return *folder;
  fail("no checkpoint at ", path.native(),
       ": expected a folder step_... or a run folder that holds some");
}

void read_array(Exec& exec, const CheckpointReader& checkpoint, const std::string& group,
                const FlatLayout& layout, Tensor& into) {
  constexpr int64_t kPiece = int64_t{1} << 22;  // elements that lie on the host at a time
  std::vector<float> piece(static_cast<size_t>(std::min(kPiece, layout.size)));
  for (int64_t begin = 0; begin < layout.size; begin += kPiece) {
    const int64_t end = std::min(begin + kPiece, layout.size);
    checkpoint.read(group, layout, {begin, end}, piece.data());
    Tensor part = into.slice(begin, {end - begin});
    on_device(exec, [&](auto& backend) {
      memory::upload(backend, part.raw(), piece.data(), part.bytes());
    });
  }
}

void read_parameters(Exec& exec, const CheckpointReader& checkpoint, ParameterBuffers& buffers) {
  const FlatLayout layout = layout_of(buffers);
  require_same_tensors(layout, checkpoint);
  read_array(exec, checkpoint, "params", layout, buffers.values);
  require_finite(exec, buffers, checkpoint.folder());
  refresh_low(exec, buffers);
}

LoadedModel load_model(const fs::path& path, Exec& exec, DType compute,
                       std::vector<std::string>* problems) {
  LoadedModel loaded;
  loaded.folder = find_checkpoint(path, problems);
  const CheckpointReader reader(loaded.folder);
  loaded.state = reader.state();
  loaded.config =
      parse_config(loaded.state.config_toml, "configuration in " + loaded.folder.native(), {});
  loaded.model = std::make_unique<Model>(loaded.config.model, exec, compute, /*grads=*/false);
  read_parameters(exec, reader, loaded.model->parameters());
  return loaded;
}

}  // namespace rodimus
