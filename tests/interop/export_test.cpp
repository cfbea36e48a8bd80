// What export writes: weights that read back to the same bits in both forms, rounded as promised,
// in files of at most the given size; and what cannot be written is one clear line.
#include "interop/export.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "interop/import.h"
#include "interop/safetensors.h"
#include "layers/model.h"
#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::expect_error;

ModelConfig config_of(const std::string& block, bool tied) {
  return {.block = block,
          .vocab_size = 11,
          .d_model = 16,
          .n_layers = 2,
          .mem_size = 4,
          .n_heads = 2,
          .tied = tied};
}

class Export : public ::testing::Test {
 protected:
  // A model with parameters drawn at random.
  Model& make(const ModelConfig& config) {
    model.emplace(config, exec, DType::f32, /*grads=*/false);
    initialize(exec, model->parameters(), 7);
    for (Parameter* p : model->parameters().parameters)  // those that begin as constants, too
      for (int64_t i = 0; i < numel_of(p->shape); ++i)
        value(*p, i) += 1e-3f * static_cast<float>(i);
    return *model;
  }
  static float& value(Parameter& p, int64_t i) { return p.var.value.data<float>()[i]; }
  Parameter& parameter(const std::string& name) {
    for (Parameter* p : model->parameters().parameters)
      if (p->name == name) return *p;
    throw std::runtime_error(name);
  }

  int64_t write(const ExportPlan& plan) {
    fs::remove_all(out);
    fs::create_directory(out);
    std::vector<uint64_t> steps;
    const auto& parameters = model->parameters().parameters;
    const int64_t files = export_weights(
        out, parameters,
        [](const Parameter& p, int64_t first, int64_t count, float* into) {
          std::memcpy(into, p.var.value.data<float>() + first,
                      static_cast<size_t>(count) * sizeof(float));
        },
        plan, "runs/x", [&](uint64_t bytes) { steps.push_back(bytes); });
    EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
    EXPECT_EQ(steps.back(), weight_bytes(parameters, plan.type));
    return files;
  }

  void expect_same_bits(const ModelConfig& config, HfForm form) {
    Model copy(config, exec, DType::f32, /*grads=*/false);
    const ImportReport report =
        import_weights(WeightFolder(out), form, config.tied, copy.parameters());
    EXPECT_FALSE(report.stored_head);
    EXPECT_EQ(report.types, std::vector<std::string>{"F32"});
    const Tensor &got = copy.parameters().values, &want = model->parameters().values;
    ASSERT_EQ(got.numel(), want.numel());
    EXPECT_EQ(std::memcmp(got.data<float>(), want.data<float>(), want.bytes()), 0);
  }

  // The header of a file, taken apart by hand.
  json header_of(const fs::path& file) {
    const std::string content = testing::read_bytes(file);
    uint64_t length = 0;
    std::memcpy(&length, content.data(), 8);
    EXPECT_EQ(length % 8, 0u);
    return json::parse(content.substr(8, length));
  }

  testing::TemporaryFolder folder;
  fs::path out = folder / "out";
  Exec exec = Cpu{1};
  std::optional<Model> model;
};

TEST_F(Export, ImportGivesBackTheSameBits) {
  for (const char* block : {"rodimus", "rodimus_plus"}) {
    for (const bool tied : {false, true}) {
      const ModelConfig config = config_of(block, tied);
      make(config);
      for (const HfForm form : {HfForm::authors, HfForm::fla}) {
        EXPECT_EQ(write({.form = form}), 1);
        EXPECT_FALSE(fs::exists(out / "model.safetensors.index.json"));
        expect_same_bits(config, form);
        EXPECT_EQ(header_of(out / "model.safetensors").contains("lm_head.weight"), !tied);
      }
    }
  }
}

TEST(SafetensorsHeader, IsWrittenAsByHand) {
  const std::vector<StoredTensor> tensors{{"b", "F32", {2, 3}, 0, 24}, {"a", "F32", {1}, 24, 28}};
  const std::string header = R"({"__metadata__":{"format":"pt"},)"
                             R"("b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                             R"("a":{"dtype":"F32","shape":[1],"data_offsets":[24,28]}})";
  const size_t padded = (header.size() + 7) / 8 * 8;
  ASSERT_GT(padded, header.size());
  EXPECT_EQ(safetensors_header(tensors), std::string(1, static_cast<char>(padded)) +
                                             std::string(7, '\0') + header +
                                             std::string(padded - header.size(), ' '));
}

TEST_F(Export, ShardsHoldAtMostTheirShare) {
  const ModelConfig config = config_of("rodimus_plus", false);
  make(config);
  const uint64_t total = weight_bytes(model->parameters().parameters, WeightType::f32);
  EXPECT_EQ(write({.shard_bytes = total}), 1);
  ASSERT_EQ(write({.shard_bytes = total - 1}), 2);
  EXPECT_FALSE(fs::exists(out / "model.safetensors"));
  EXPECT_TRUE(fs::exists(out / "model-00001-of-00002.safetensors"));

  for (const HfForm form : {HfForm::authors, HfForm::fla}) {
    constexpr uint64_t kMost = 3000;  // fc has 64 x 16 numbers: 4096 bytes
    const int64_t files = write({.form = form, .shard_bytes = kMost});
    const json index = json::parse(testing::read_bytes(out / "model.safetensors.index.json"));
    EXPECT_EQ(index["metadata"]["total_size"], total);
    std::set<std::string> names;
    uint64_t before = kMost;
    bool any_larger = false;
    for (int64_t i = 1; i <= files; ++i) {
      char name[64];
      std::snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", static_cast<int>(i),
                    static_cast<int>(files));
      const SafetensorsFile file(out / name);
      uint64_t bytes = 0;
      for (const StoredTensor& tensor : file.tensors()) {
        bytes = tensor.end;
        EXPECT_EQ(index["weight_map"][tensor.name], name);
        EXPECT_TRUE(names.insert(tensor.name).second) << tensor.name;
      }
      EXPECT_TRUE(bytes <= kMost || file.tensors().size() == 1) << name << ": " << bytes;
      any_larger = any_larger || bytes > kMost;
      // No file is cut before it is full.
      EXPECT_GT(before + file.tensors().front().end, kMost) << name;
      before = bytes;
    }
    EXPECT_EQ(any_larger, form == HfForm::authors);
    EXPECT_EQ(names.size(), index["weight_map"].size());
    expect_same_bits(config, form);
  }
}

TEST_F(Export, TensorsLongerThanAPieceAreWrittenWhole) {
  ModelConfig config = config_of("rodimus", true);
  config.vocab_size = 40000;  // times 16: between two and three pieces
  config.d_model = 16;
  make(config);
  write({});
  expect_same_bits(config, HfForm::authors);
  parameter("model.embeddings.weight").var.value.data<float>()[600000] = 1e5f;
  expect_error([&] { write({.type = WeightType::f16}); },
               {"runs/x: element 600000 of model.embeddings.weight is 100000"});
}

TEST_F(Export, NumbersAreRoundedToNearestEven) {
  const ModelConfig config = config_of("rodimus", true);
  make(config);
  Parameter& embedding = parameter("model.embeddings.weight");
  struct Case {
    float value;
    uint16_t brain, half;
  };
  // Half-way cases go to the even neighbour, on either side, and a little more goes up.
  const std::vector<Case> cases{{1.0f, 0x3f80, 0x3c00},          {-2.5f, 0xc020, 0xc100},
                                {0.0f, 0x0000, 0x0000},          {-0.0f, 0x8000, 0x8000},
                                {0x1.01p0f, 0x3f80, 0x3c04},     {0x1.03p0f, 0x3f82, 0x3c0c},
                                {0x1.010002p0f, 0x3f81, 0x3c04}, {0x1.002p0f, 0x3f80, 0x3c00},
                                {0x1.006p0f, 0x3f80, 0x3c02},    {0x1.002002p0f, 0x3f80, 0x3c01},
                                {65504.0f, 0x4780, 0x7bff},      {0x1p-14f, 0x3880, 0x0400},
                                {0x1p-24f, 0x3380, 0x0001},      {0x1p-25f, 0x3300, 0x0000},
                                {0x1.8p-24f, 0x33c0, 0x0002},    {-0x1.000002p-25f, 0xb300, 0x8001},
                                {0x1.ffffp-15f, 0x3880, 0x0400}, {0x1p-149f, 0x0000, 0x0000},
                                {0x1.fep15f, 0x477f, 0x7bf8}};
  ASSERT_LE(cases.size(), 11u * 16u);
  for (const bool brain : {true, false}) {
    for (size_t i = 0; i < cases.size(); ++i)
      value(embedding, static_cast<int64_t>(i)) = cases[i].value;
    write({.type = brain ? WeightType::bf16 : WeightType::f16});
    const json header = header_of(out / "model.safetensors");
    for (const auto& [name, entry] : header.items()) {
      EXPECT_TRUE(name == "__metadata__" || entry["dtype"] == (brain ? "BF16" : "F16")) << name;
    }
    const std::string content = testing::read_bytes(out / "model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, content.data(), 8);
    ASSERT_EQ(header["model.embeddings.weight"]["data_offsets"][0], 0);
    for (size_t i = 0; i < cases.size(); ++i) {
      uint16_t bits = 0;
      std::memcpy(&bits, content.data() + 8 + length + 2 * i, 2);
      EXPECT_EQ(bits, brain ? cases[i].brain : cases[i].half)
          << cases[i].value << (brain ? " in bf16" : " in f16");
    }
  }
}

TEST_F(Export, NumbersThatDoNotFitAreNamed) {
  make(config_of("rodimus_plus", false));
  const std::string name = "model.layers.1.mixer.inner_mixer.mem_gate_proj.bias";
  Parameter& gate = parameter(name);
  const auto with = [&](float x, WeightType type, std::vector<std::string> parts) {
    value(gate, 5) = x;
    // In fla's form it is element 1 of tau_gate_proj.bias: the name is that of the checkpoint.
    for (const HfForm form : {HfForm::authors, HfForm::fla}) {
      parts.push_back("runs/x: element 5 of " + name + " is ");
      expect_error([&] { write({.form = form, .type = type}); }, parts);
      EXPECT_TRUE(fs::is_empty(out));
    }
  };
  with(65505, WeightType::f16, {"the largest number of f16 is 65504", "--dtype bf16 or f32"});
  with(-1e6f, WeightType::f16, {"-1e+06"});
  with(3.4e38f, WeightType::bf16, {"the largest number of bf16 is 3.38953e+38", "--dtype f32"});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const auto type : {WeightType::f32, WeightType::bf16, WeightType::f16}) {
    with(nan, type, {"nan; the run had diverged"});
    with(-infinity, type, {"-inf; the run had diverged"});
  }
  value(gate, 5) = 0x1.fep127f;
  EXPECT_EQ(write({.type = WeightType::bf16}), 1);
}

TEST_F(Export, StopsWhenAsked) {
  make(config_of("rodimus", true));
  fs::create_directory(out);
  const auto zeros = [](const Parameter&, int64_t, int64_t count, float* into) {
    std::fill_n(into, count, 0.0f);
  };
  const auto stop = [](uint64_t) { fail("stopped"); };
  expect_error([&] { export_weights(out, model->parameters().parameters, zeros, {}, "", stop); },
               {"stopped"});
  EXPECT_TRUE(fs::is_empty(out));
}

}  // namespace
}  // namespace rodimus
