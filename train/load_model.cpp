#include "train/load_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"
#include "kernels/memory.h"
#include "train/placement.h"

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

Config config_of(const CheckpointReader& checkpoint) {
  return parse_config(checkpoint.state().config_toml,
                      "configuration in " + checkpoint.folder().string(), {});
}

fs::path run_folder_of(const fs::path& step_folder) {
  std::error_code ignored;
  const fs::path whole = fs::weakly_canonical(step_folder, ignored);
  return (whole.has_filename() ? whole : whole.parent_path()).parent_path();
}

std::string find_tokenizer(const std::string& given, const LoadedModel& loaded) {
  if (!given.empty()) return given;
  std::error_code ignored;
  const fs::path copy = run_folder_of(loaded.folder) / kRunTokenizer;
  const std::string& file = loaded.config.data.tokenizer;
  if (file.empty()) return "";
  if (fs::exists(copy, ignored)) return copy.string();
  if (!fs::exists(file, ignored)) {
    fail("the run used the tokenizer ", file, ", which is neither there nor in ", copy.native(),
         "; name it with --tokenizer");
  }
  return file;
}

LoadedModel load_model(const fs::path& path, Exec& exec, const std::string& compute,
                       std::vector<std::string>* problems) {
  LoadedModel loaded;
  loaded.folder = find_checkpoint(path, problems);
  const CheckpointReader reader(loaded.folder);
  loaded.state = reader.state();
  loaded.config = config_of(reader);
  const Device device = device_of(exec);
  const std::string trained = loaded.config.run.compute;
  loaded.compute = resolve_compute(compute == "run" ? trained : compute, device);
  if (compute == "run" && trained == "auto") {
    loaded.compute_note =
        concat("the checkpoint does not say in which type it was trained: computing in ",
               describe_compute("auto", device), "; --compute names another");
  } else if (loaded.compute == DType::bf16 && !has_native_bf16(device)) {
    loaded.compute_note =
        "bf16 on a CPU that does not multiply it: products of bf16 numbers are computed in f32";
  } else if (trained != "auto" && trained != name_of(loaded.compute)) {
    loaded.compute_note = concat("computing in ", name_of(loaded.compute),
                                 ", though the run was trained in ", trained);
  }
  loaded.model =
      std::make_unique<Model>(loaded.config.model, exec, loaded.compute, /*grads=*/false);
  read_parameters(exec, reader, loaded.model->parameters());
  return loaded;
}

}  // namespace rodimus
