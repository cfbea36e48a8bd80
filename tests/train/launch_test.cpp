// Every kernel at the sizes of the presets, within the limits of the GPUs that we support. The
// emulator checks and records the launches of real training steps and real generation, and runs
// nothing. RODIMUS_LAUNCHES=FILE writes the record for tests/simt/resources.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "kernels/gated_norm.h"
#include "kernels/reduce.h"
#include "kernels/short_conv.h"
#include "tests/train/real_step.h"
#include "train/config/config.h"
#include "train/inference/generate.h"
#include "train/report/bench.h"

namespace rodimus {
namespace {

constexpr const char* kGpus[] = {"sm_80", "sm_90", "sm_100"};

// The GPU of this process as it would be with the limits of simt::gpu().
Cuda open_as_set() {
  Cuda gpu = testing::backend();
  gpu.shared_bytes = static_cast<int64_t>(simt::gpu().shared_per_block);
  return gpu;
}

// Text after a prompt, and a token with a whole window of keys behind it.
void generate_some(const ModelConfig& config, DType compute) {
  Context ctx{open_as_set(), compute, nullptr, nullptr};
  Model model(config, ctx.exec, compute, /*grads=*/false);
  initialize(ctx.exec, model.parameters(), 1);
  const std::vector<int32_t> prompt(600, 0);
  generate(ctx, model, prompt, {.sampling = {.temperature = 0}, .max_tokens = 2},
           [](int32_t) { return true; });
  ModelState state = state_at(ctx, model, 65536);
  const int32_t token = 0;
  (void)model.next_logits(ctx, to_device(ctx.exec, {&token, 1}, {1, 1}), state);
}

// Outside of steps and generation: the comparison of parameters between ranks.
void compare_parameters(const ModelConfig& config, DType compute) {
  Exec exec = open_as_set();
  Model model(config, exec, compute, /*grads=*/false);
  Tensor& values = model.parameters().values;
  Cuda& gpu = std::get<Cuda>(exec);
  (void)hash_bytes(gpu, values.data<float>(), values.numel() * int64_t{sizeof(float)});
}

// Kernels whose shared memory grows with the row. With `offset` 1 no pack fits its addresses.
template <class T>
void run_rows(int64_t dim, int64_t offset) {
  Cuda gpu = open_as_set();
  testing::Array<T> rows(2 * dim + 1);
  testing::Array<float> columns(8 * dim);
  T* const x = rows.data() + offset;
  float* const w = columns.data();
  const GatedNormDims dims{2, dim, 1e-5f};
  gated_norm_forward<T>(
      gpu, {.dims = dims, .o = x, .c = x, .skip_weight = w, .gate = x, .w = w, .y = x, .rstd = w});
  gated_norm_backward<T>(gpu, {.dims = dims,
                               .o = x,
                               .c = x,
                               .skip_weight = w,
                               .gate = x,
                               .w = w,
                               .rstd = w,
                               .dy = x,
                               .d_o = x,
                               .dc = x,
                               .dgate = x,
                               .dskip_weight = w,
                               .dw = w});
  const ShortConvDims conv{.B = 1, .T = 2, .D = dim, .width = 4};
  short_conv_forward<T>(gpu, {.dims = conv, .x = x, .weight = w, .bias = w, .y = x});
  short_conv_backward<T>(
      gpu,
      {.dims = conv, .x = x, .weight = w, .bias = w, .dy = x, .dx = x, .dweight = w, .dbias = w});
}

void launch_all(const ModelConfig& config, StepShape shape) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    SCOPED_TRACE(concat(simt::gpu().name, ", ", name_of(compute), ", d_model ", config.d_model));
    const testing::LaunchOnly launch_only;
    simt::clear_reports();
    for (const bool documents : {false, true}) {
      shape.documents = documents;
      (void)testing::real_step(open_as_set(), config, compute, shape);
    }
    generate_some(config, compute);
    compare_parameters(config, compute);
    EXPECT_EQ(simt::report_text(), "");
  }
}

// What no model has: rows that no pack fits, and rows so long that the gated norm must save shared
// memory on every GPU and yet can.
void run_unusual_rows() {
  constexpr int64_t kUsual = 4096;
  const testing::LaunchOnly launch_only;
  for (const int64_t offset : {0, 1}) {
    run_rows<float>(kUsual, offset);
    run_rows<bf16>(kUsual, offset);
    run_rows<float>(6656, offset);
    run_rows<bf16>(9216, offset);
  }
}

// What no preset takes and a configuration may: kernels for wide heads, for many keys of the
// state, for long filters, and for rows that no pack divides.
std::vector<ModelConfig> unusual_models() {
  ModelConfig wide;
  wide.vocab_size = 1000;
  wide.d_model = 1024;
  wide.n_layers = 1;
  wide.n_heads = 4;
  wide.mem_size = 128;
  ModelConfig odd = wide;
  odd.vocab_size = 61;
  odd.d_model = 66;
  odd.n_heads = 11;
  odd.mem_size = 13;
  odd.gate_rank = 5;
  odd.conv_width = 32;
  return {wide, odd};
}

std::string file_text(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

// File and name of all __global__ functions below kernels/cuda.
std::set<std::pair<std::string, std::string>> kernels_of_sources() {
  static const std::regex kKernel(
      R"(__global__\s+void\s+(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)\s*\()");
  std::set<std::pair<std::string, std::string>> names;
  const std::filesystem::path folder = std::filesystem::path(RODIMUS_SOURCE_DIR) / "kernels/cuda";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const auto extension = entry.path().extension();
    if (extension != ".cu" && extension != ".cuh") continue;
    const std::string text = file_text(entry.path());
    for (std::sregex_iterator it(text.begin(), text.end(), kKernel), end; it != end; ++it)
      names.emplace(entry.path().filename().string(), (*it)[1].str());
  }
  return names;
}

// A name stands in a mangled one with its length before it. Several sources have a kernel of the
// same name; these are local to their files, which the record then knows.
bool was_launched(const std::string& source, const std::string& name,
                  const std::vector<simt::Launch>& launched) {
  const std::string mangled = concat(name.size(), name);
  return std::any_of(launched.begin(), launched.end(), [&](const simt::Launch& one) {
    return one.kernel.find(mangled) != one.kernel.npos &&
           (one.file.empty() || one.file == source || source.ends_with(".cuh"));
  });
}

// For each GPU and kind of block what resources.py compares: file, kernel, threads of a block,
// static and dynamic shared memory.
void write_record(std::ostream& to, const std::vector<simt::Launch>& launches) {
  for (const simt::Launch& one : launches) {
    to << simt::gpu().name << '\t' << one.file << '\t' << one.kernel << '\t'
       << one.block.x * one.block.y * one.block.z << '\t' << one.static_shared << '\t'
       << one.dynamic_shared << '\n';
  }
}

TEST(Launch, EveryKernelAtEveryPresetFitsEveryGpu) {
  const std::filesystem::path folder = std::filesystem::path(RODIMUS_SOURCE_DIR) / "configs";
  std::vector<Config> presets;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".toml") presets.push_back(load_config(entry.path(), {}));
  }
  ASSERT_GE(presets.size(), 7u);
  const char* const file = std::getenv("RODIMUS_LAUNCHES");
  std::ofstream record;
  if (file != nullptr) record.open(file);
  std::vector<simt::Launch> launched;
  for (const char* gpu : kGpus) {
    simt::set_gpu(gpu);
    simt::clear_launches();
    for (Config& preset : presets) {
      preset.model.n_layers = 1;
      const int64_t B =
          preset.run.micro_batch > 0 ? preset.run.micro_batch : preset.run.global_batch;
      launch_all(preset.model,
                 {.B = B, .T = preset.data.seq_len, .recompute = preset.run.recompute});
    }
    run_unusual_rows();
    for (const ModelConfig& model : unusual_models()) launch_all(model, {.B = 2, .T = 2048});
    const std::vector<simt::Launch> launches = simt::launches();
    launched.insert(launched.end(), launches.begin(), launches.end());
    if (file != nullptr) write_record(record, launches);
  }
  simt::set_gpu("sm_80");
  if (file != nullptr) {
    ASSERT_TRUE(record.flush()) << "cannot write " << file;
  }
  const std::set<std::pair<std::string, std::string>> kernels = kernels_of_sources();
  EXPECT_GE(kernels.size(), 25u);
  for (const auto& [source, name] : kernels) {
    EXPECT_TRUE(was_launched(source, name, launched))
        << source << ": " << name
        << " was never launched: let launch_all() or unusual_models() reach it";
  }
}

}  // namespace
}  // namespace rodimus
