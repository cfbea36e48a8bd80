#include "interop/import.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/words.h"

namespace rodimus {
namespace {

constexpr const char* kEmbedding = "model.embeddings.weight";
constexpr const char* kHead = "lm_head.weight";

// A module of a block: `ours` becomes `fla`, or `fla` followed by `second`.
struct Renaming {
  std::string_view ours, fla, second = {};
};
constexpr std::array<Renaming, 17> kRenamings{{
    {"mixer.fc", "mixer.up_proj", "mixer.gate_proj"},
    {"mixer.inner_mixer", "mixer"},  // residual_weight
    {"mixer.inner_mixer.short_conv.conv1d", "mixer.short_conv"},
    {"mixer.inner_mixer.in_proj", "mixer.q_proj", "mixer.k_proj"},
    {"mixer.inner_mixer.mem_gate_proj", "mixer.g_gate_proj", "mixer.tau_gate_proj"},
    {"mixer.inner_mixer.ch_gate_proj.0", "mixer.i_gate_proj.0"},
    {"mixer.inner_mixer.ch_gate_proj.1", "mixer.i_gate_proj.1"},
    {"mixer.act_norm", "mixer.activation_norm"},
    {"mixer.out_proj", "mixer.down_proj"},
    {"attn_norm", "ska_attn_norm"},
    {"attn.out_proj", "ska_attn.o_proj"},
    {"attn.q_proj", "ska_attn.q_proj"},
    {"attn.k_proj", "ska_attn.k_proj"},
    {"attn.v_proj", "ska_attn.v_proj"},
    {"ffn_norm", "mlp_norm"},
    {"ffn.fc", "mlp.up_proj", "mlp.gate_proj"},
    {"ffn.out_proj", "mlp.down_proj"},
}};

const Renaming* renaming_of(std::string_view module) {
  for (const Renaming& renaming : kRenamings)
    if (renaming.ours == module) return &renaming;
  return nullptr;
}

// transformers saves the buffers of a decoding cache with the model: "....mixer.ssm_state_3".
bool is_generation_state(const std::string& name) {
  const std::string last = name.substr(name.rfind('.') + 1);
  const size_t digits = last.find_last_not_of("0123456789") + 1;
  const std::string kind = last.substr(0, digits);
  return digits < last.size() && (kind == "conv_state_" || kind == "ssm_state_" ||
                                  kind == "key_cache_" || kind == "value_cache_");
}

// Where one stored tensor goes.
struct Part {
  WeightFolder::Place place;
  float* values;
};

// The part `name` of parameter `p`, which has `parts` of equal size.
WeightFolder::Place find_part(const WeightFolder& weights, const std::string& name,
                              const Parameter& p, int64_t parts) {
  const auto found = weights.tensors().find(name);
  if (found == weights.tensors().end()) {
    fail(weights.folder().native(), ": ", name,
         " is missing in the weights, but config.json describes a model that has it");
  }
  const WeightFolder::Place place = found->second;
  Shape wanted = p.shape;
  CHECK(wanted.front() % parts == 0, name, ": ", to_string(p.shape), " cannot be split");
  wanted.front() /= parts;
  const std::string file = place.file->path().native();
  if (place.tensor->shape != wanted) {
    fail(file, ": ", name, " has the shape ", to_string(place.tensor->shape),
         ", but by config.json it must have ", to_string(wanted));
  }
  if (!is_readable_type(place.tensor->type)) {
    fail(file, ": ", name, " is stored as ", place.tensor->type,
         "; weights must be F32, BF16 or F16");
  }
  return place;
}

void read_part(const Part& part) {
  const StoredTensor& tensor = *part.place.tensor;
  const int64_t count = tensor.numel();
  for (int64_t first = 0; first < count; first += kImportPiece) {
    const int64_t n = std::min(kImportPiece, count - first);
    float* values = part.values + first;
    part.place.file->read(tensor, first, n, values);
    const float* bad =
        std::find_if_not(values, values + n, [](float x) { return std::isfinite(x); });
    if (bad == values + n) continue;
    fail(part.place.file->path().native(), ": element ", first + (bad - values), " of ",
         tensor.name, " is ", *bad, "; the model had diverged, or the file is damaged");
  }
}

void require_equal_head(const WeightFolder::Place& head, const Parameter& embedding) {
  const float* values = std::as_const(embedding.var.value).data<float>();
  const int64_t count = head.tensor->numel();
  std::vector<float> piece(static_cast<size_t>(std::min(count, kImportPiece)));
  for (int64_t first = 0; first < count; first += kImportPiece) {
    const int64_t n = std::min(kImportPiece, count - first);
    head.file->read(*head.tensor, first, n, piece.data());
    const auto [stored, ours] = std::mismatch(piece.begin(), piece.begin() + n, values + first);
    if (stored == piece.begin() + n) continue;
    fail(head.file->path().native(), ": ", kHead, " differs from ", kEmbedding, " at element ",
         first + (stored - piece.begin()), " (", *stored, " and ", *ours,
         "), but config.json says that they are tied; set tie_word_embeddings to false there if "
         "the stored head is the right one");
  }
}

}  // namespace

std::vector<std::string> stored_names(const std::string& name, HfForm form) {
  constexpr std::string_view kLayers = "model.layers.";
  if (form == HfForm::authors) return {name};
  if (name == "model.norm_f.weight") return {"model.norm.weight"};
  if (!name.starts_with(kLayers)) return {name};
  const size_t module = name.find('.', kLayers.size()) + 1, leaf = name.rfind('.');
  const Renaming* renaming =
      renaming_of(std::string_view(name).substr(module, leaf > module ? leaf - module : 0));
  const std::string prefix = name.substr(0, module), suffix = name.substr(leaf);
  if (!renaming) return {name};
  std::vector<std::string> names{concat(prefix, renaming->fla, suffix)};
  if (!renaming->second.empty()) names.push_back(concat(prefix, renaming->second, suffix));
  return names;
}

ImportReport import_weights(const WeightFolder& weights, HfForm form, bool tied,
                            ParameterBuffers& buffers) {
  std::vector<Part> parts;
  std::set<std::string> used, types;
  const Parameter* embedding = nullptr;
  for (Parameter* p : buffers.parameters) {
    CHECK(p->var.value.device() == Device::cpu, "import_weights: ", p->name, " is not on the host");
    const std::vector<std::string> names = stored_names(p->name, form);
    float* values = p->var.value.data<float>();
    for (const std::string& name : names) {
      const auto place = find_part(weights, name, *p, static_cast<int64_t>(names.size()));
      parts.push_back({place, values});
      values += place.tensor->numel();
      used.insert(name);
      types.insert(place.tensor->type);
    }
    if (p->name == kEmbedding) embedding = p;
  }
  ImportReport report;
  std::optional<WeightFolder::Place> head;
  for (const auto& [name, place] : weights.tensors()) {
    if (used.contains(name)) continue;
    if (is_generation_state(name)) {
      report.passed_over.push_back(name);
    } else if (tied && name == kHead) {
      head = find_part(weights, name, *embedding, 1);
    } else {
      fail(place.file->path().native(), ": ", shortened(name), " is ", place.tensor->describe(),
           ", for which the model of config.json, in ", name_of(form), " form, has no parameter");
    }
  }
  for (const Part& part : parts) read_part(part);
  if (head) require_equal_head(*head, *embedding);
  report.stored_head = head.has_value();
  report.types.assign(types.begin(), types.end());
  return report;
}

}  // namespace rodimus
