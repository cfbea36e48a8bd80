// Weights in both forms arrive in the right parameters; what does not fit is one clear line.
#include "interop/import.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "layers/model.h"
#include "tests/support/failure_of.h"
#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using rodimus::testing::failure_of;

struct Stored {
  std::string name, type;
  Shape shape;
  std::vector<float> values;
};

ModelConfig config_of(bool tied, int64_t vocab_size) {
  ModelConfig config;
  config.vocab_size = vocab_size;
  config.d_model = 16;
  config.n_layers = 2;
  config.mem_size = 4;
  config.n_heads = 2;
  config.tied = tied;
  return config;
}

// Every value of the model is another number.
void number(ParameterBuffers& buffers, float first) {
  for (Parameter* p : buffers.parameters)
    for (int64_t i = 0; i < numel_of(p->shape); ++i) p->var.value.data<float>()[i] = first++;
}

// The table of docs and of fla's sources once more, by hand: {ours, its pieces in fla's form}.
const std::vector<std::pair<std::string, std::vector<std::string>>> kFlaNames{
    {"model.embeddings.weight", {"model.embeddings.weight"}},
    {"lm_head.weight", {"lm_head.weight"}},
    {"model.norm_f.weight", {"model.norm.weight"}},
    {"L.mixer_norm.weight", {"L.mixer_norm.weight"}},
    {"L.mixer.fc.weight", {"L.mixer.up_proj.weight", "L.mixer.gate_proj.weight"}},
    {"L.mixer.inner_mixer.short_conv.conv1d.weight", {"L.mixer.short_conv.weight"}},
    {"L.mixer.inner_mixer.short_conv.conv1d.bias", {"L.mixer.short_conv.bias"}},
    {"L.mixer.inner_mixer.in_proj.weight", {"L.mixer.q_proj.weight", "L.mixer.k_proj.weight"}},
    {"L.mixer.inner_mixer.mem_gate_proj.weight",
     {"L.mixer.g_gate_proj.weight", "L.mixer.tau_gate_proj.weight"}},
    {"L.mixer.inner_mixer.mem_gate_proj.bias",
     {"L.mixer.g_gate_proj.bias", "L.mixer.tau_gate_proj.bias"}},
    {"L.mixer.inner_mixer.ch_gate_proj.0.weight", {"L.mixer.i_gate_proj.0.weight"}},
    {"L.mixer.inner_mixer.ch_gate_proj.1.weight", {"L.mixer.i_gate_proj.1.weight"}},
    {"L.mixer.inner_mixer.ch_gate_proj.1.bias", {"L.mixer.i_gate_proj.1.bias"}},
    {"L.mixer.inner_mixer.residual_weight", {"L.mixer.residual_weight"}},
    {"L.mixer.act_norm.weight", {"L.mixer.activation_norm.weight"}},
    {"L.mixer.out_proj.weight", {"L.mixer.down_proj.weight"}},
    {"L.attn_norm.weight", {"L.ska_attn_norm.weight"}},
    {"L.attn.q_proj.weight", {"L.ska_attn.q_proj.weight"}},
    {"L.attn.k_proj.weight", {"L.ska_attn.k_proj.weight"}},
    {"L.attn.v_proj.weight", {"L.ska_attn.v_proj.weight"}},
    {"L.attn.out_proj.weight", {"L.ska_attn.o_proj.weight"}},
    {"L.ffn_norm.weight", {"L.mlp_norm.weight"}},
    {"L.ffn.fc.weight", {"L.mlp.up_proj.weight", "L.mlp.gate_proj.weight"}},
    {"L.ffn.out_proj.weight", {"L.mlp.down_proj.weight"}},
};

std::vector<std::string> fla_names(const std::string& name) {
  std::string generic = name, prefix;
  if (name.starts_with("model.layers.")) {
    prefix = name.substr(0, name.find('.', 13));
    generic = "L" + name.substr(prefix.size());
  }
  for (const auto& [ours, pieces] : kFlaNames) {
    if (ours != generic) continue;
    std::vector<std::string> names;
    for (const std::string& piece : pieces)
      names.push_back(piece.starts_with("L.") ? prefix + piece.substr(1) : piece);
    return names;
  }
  ADD_FAILURE() << name << " is not in the table";
  return {};
}

class Import : public ::testing::Test {
 protected:
  // The tensors of a numbered model as they are stored in F32.
  std::vector<Stored> tensors(HfForm form, bool tied) {
    Model model(config_of(tied, vocab_size), exec, DType::f32, /*grads=*/false);
    number(model.parameters(), 1);
    std::vector<Stored> stored;
    for (Parameter* p : model.parameters().parameters) {
      const auto names =
          form == HfForm::fla ? fla_names(p->name) : std::vector<std::string>{p->name};
      const float* values = p->var.value.data<float>();
      Shape shape = p->shape;
      shape.front() /= static_cast<int64_t>(names.size());
      for (const std::string& name : names) {
        stored.push_back({name, "F32", shape, {values, values + numel_of(shape)}});
        values += numel_of(shape);
      }
    }
    return stored;
  }

  void write(const std::vector<Stored>& stored) {
    json header;
    std::string data;
    for (const Stored& tensor : stored) {
      const size_t begin = data.size();
      data.append(reinterpret_cast<const char*>(tensor.values.data()),
                  tensor.values.size() * sizeof(float));
      header[tensor.name] = {
          {"dtype", tensor.type}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
    }
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::ofstream out(folder / "model.safetensors", std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), 8) << text << data;
  }

  ImportReport import(HfForm form, bool tied) {
    Model model(config_of(tied, vocab_size), exec, DType::f32, /*grads=*/false);
    number(model.parameters(), -1e6f);
    const ImportReport report =
        import_weights(WeightFolder(folder.path()), form, tied, model.parameters());
    float next = 1;
    for (Parameter* p : model.parameters().parameters)
      for (int64_t i = 0; i < numel_of(p->shape); ++i, ++next)
        EXPECT_EQ(p->var.value.data<float>()[i], next) << p->name << " element " << i;
    return report;
  }

  std::string refusal(const std::vector<Stored>& stored, bool tied = false,
                      HfForm form = HfForm::authors) {
    write(stored);
    const std::string why = failure_of([&] { import(form, tied); });
    EXPECT_TRUE(why.starts_with(folder.path().string())) << why;
    EXPECT_EQ(why.find('\n'), std::string::npos) << why;
    return why;
  }

  testing::TemporaryFolder folder;
  int64_t vocab_size = 11;
  Exec exec = Cpu{1};
};

TEST_F(Import, EveryParameterIsFoundInBothForms) {
  for (const HfForm form : {HfForm::authors, HfForm::fla}) {
    for (const bool tied : {false, true}) {
      write(tensors(form, tied));
      const ImportReport report = import(form, tied);
      EXPECT_EQ(report.types, std::vector<std::string>{"F32"});
      EXPECT_TRUE(report.passed_over.empty());
      EXPECT_FALSE(report.stored_head);
    }
  }
}

TEST_F(Import, ATiedHeadMayBeStored) {
  std::vector<Stored> stored = tensors(HfForm::authors, true);
  Stored head = *std::find_if(stored.begin(), stored.end(), [](const Stored& tensor) {
    return tensor.name == "model.embeddings.weight";
  });
  head.name = "lm_head.weight";
  stored.push_back(head);
  write(stored);
  EXPECT_TRUE(import(HfForm::authors, true).stored_head);
  const float right = stored.back().values[7];
  stored.back().values[7] = std::nextafter(right, 1e9f);
  EXPECT_NE(refusal(stored, true)
                .find("lm_head.weight differs from model.embeddings.weight at "
                      "element 7"),
            std::string::npos);
  stored.back().values[7] = right;
  stored.back().shape = {16, 11};
  EXPECT_NE(refusal(stored, true)
                .find("lm_head.weight has the shape (16, 11), but by config.json "
                      "it must have (11, 16)"),
            std::string::npos);
}

// Tensors are read one piece at a time.
TEST_F(Import, TensorsLongerThanAPieceArriveWhole) {
  vocab_size = 70000;
  ASSERT_GT(vocab_size * 16, kImportPiece);
  std::vector<Stored> stored = tensors(HfForm::authors, true);
  Stored head = stored.front();
  ASSERT_EQ(head.name, "model.embeddings.weight");
  head.name = "lm_head.weight";
  stored.push_back(head);
  write(stored);
  EXPECT_TRUE(import(HfForm::authors, true).stored_head);
  stored.back().values.back() = -1;
  const std::string last = std::to_string(head.values.size() - 1);
  EXPECT_NE(refusal(stored, true).find("at element " + last + " (-1"), std::string::npos);
}

TEST_F(Import, StateOfGenerationIsPassedOver) {
  const std::string layer = "model.layers.1.";
  const std::vector<std::string> state{layer + "attn.key_cache_1", layer + "attn.value_cache_1",
                                       layer + "mixer.inner_mixer.conv_state_1",
                                       layer + "mixer.inner_mixer.ssm_state_1"};
  std::vector<Stored> stored = tensors(HfForm::authors, false);
  for (const std::string& name : state) stored.push_back({name, "I32", {1, 2}, {0, 0}});
  write(stored);
  EXPECT_EQ(import(HfForm::authors, false).passed_over, state);
  for (const char* name : {"attn.key_cache_", "attn.key_cache_x", "attn.my_key_cache_1",
                           "conv_state_1.weight", "attn.key_cache"}) {
    stored.back().name = layer + name;
    EXPECT_NE(refusal(stored).find(layer + name + " is I32 (1, 2), for which the model"),
              std::string::npos);
  }
}

TEST_F(Import, WhatDoesNotFitIsNamed) {
  const std::vector<Stored> good = tensors(HfForm::authors, false);
  const auto with = [&](const std::string& name, const std::function<void(Stored&)>& change) {
    std::vector<Stored> stored = good;
    for (Stored& tensor : stored)
      if (tensor.name == name) change(tensor);
    return refusal(stored);
  };
  const std::string gate = "model.layers.1.mixer.inner_mixer.mem_gate_proj.bias";
  const auto found = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  found(with(gate, [](Stored& t) { t.name = "model.layers.2.mixer_norm.weight"; }),
        gate + " is missing");
  found(with(gate,
             [](Stored& t) {
               t.shape = {2, 4};
             }),
        gate + " has the shape (2, 4), but by config.json it must have (8)");
  found(with(gate, [](Stored& t) { t.type = "I32"; }), gate + " is stored as I32");
  found(with(gate, [](Stored& t) { t.values[5] = std::numeric_limits<float>::quiet_NaN(); }),
        "element 5 of " + gate + " is nan");
  found(with(gate, [](Stored& t) { t.values[0] = std::numeric_limits<float>::infinity(); }),
        "element 0 of " + gate + " is inf");
  std::vector<Stored> more = good;
  more.push_back({"model.layers.2.mixer_norm.weight", "F32", {16}, std::vector<float>(16)});
  found(refusal(more), "model.layers.2.mixer_norm.weight is F32 (16), for which the model");
  // The other form's names.
  found(refusal(good, false, HfForm::fla), "model.layers.0.mixer.up_proj.weight is missing");
  found(refusal(tensors(HfForm::fla, false)), "model.layers.0.mixer.fc.weight is missing");
}

}  // namespace
}  // namespace rodimus
