#include "train/config/config_schema.h"

#include <array>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/words.h"
#include "layers/blocks.h"
#include "train/optimizer.h"

namespace rodimus {
namespace {

const std::array<std::string, 5> kSections = {"model", "data", "optimizer", "run", "checkpoint"};

constexpr double kMostInteger = 0x1p63;  // 2^63 - 1, the largest integer of TOML, as a double

ConfigRange at_least(double low) { return {.low = low}; }
ConfigRange above(double low) { return {.low = low, .low_open = true}; }
ConfigRange between(double low, double high) { return {.low = low, .high = high}; }
// Sizes and counts, limited so that the product of two fits in 64 bits.
ConfigRange count_from(double low) { return between(low, static_cast<double>(kMaxSize)); }

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

std::string short_number(double x) {
  if (x == kMostInteger) return "2^63 - 1";
  const bool whole = x == std::floor(x) && std::abs(x) < 1e15;
  return whole ? std::to_string(static_cast<int64_t>(x)) : toml_number(x);
}

// Appends fields to one section; each may be completed by the caller.
struct Section {
  std::vector<ConfigField>& fields;
  std::string name;
  AtResume at_resume = AtResume::said;

  ConfigField& number(const char* key, ConfigTarget target, ConfigRange range, const char* docs) {
    return fields.emplace_back(ConfigField{name, key, target, range, {}, docs, at_resume});
  }
  ConfigField& text(const char* key, std::string* target, std::vector<std::string> choices,
                    const char* docs) {
    return fields.emplace_back(
        ConfigField{name, key, target, {}, std::move(choices), docs, at_resume});
  }
  ConfigField& other(const char* key, ConfigTarget target, const char* docs) {
    return fields.emplace_back(ConfigField{name, key, target, {}, {}, docs, at_resume});
  }
};

// `value`, or nullopt if the model's blocks do not read `key`.
template <class T>
std::string if_read(const ModelConfig& c, std::string_view key, const T& value) {
  return block_type(c.block).reads(key) ? concat(value) : "";
}

void add_model(Section s, ModelConfig& c) {
  s.text("block", &c.block, block_names(),
         "Rodimus: only the DDTS mixer. Rodimus+: the mixer, then sliding-window shared-key "
         "attention and an FFN in a two-hop residual.");
  s.number("vocab_size", &c.vocab_size, count_from(0), "0 = from the tokenizer or the shards");
  s.number("d_model", &c.d_model, count_from(1), "d, width of the residual stream; required");
  s.number("n_layers", &c.n_layers, between(1, kMaxLayers), "blocks; required");
  s.number("mem_size", &c.mem_size, count_from(1), "m, key channels of the DDTS state");
  s.number("conv_width", &c.conv_width, between(1, kMaxConvWidth),
           "taps of the causal depthwise convolution");
  s.number("expand", &c.expand, {.low = 0, .high = 64, .low_open = true},
           "e = expand * d, rounded up to a multiple of 8")
      .meaning = [](const ModelConfig& m) { return concat(m.d_inner()); };
  s.number("gate_rank", &c.gate_rank, count_from(0), "r of the value gate; 0 = max(d / 64, 16)")
      .meaning = [](const ModelConfig& m) { return concat(m.value_gate_rank()); };
  s.number("n_heads", &c.n_heads, count_from(0),
           "query heads of the attention; required for rodimus_plus")
      .meaning = [](const ModelConfig& m) { return if_read(m, "n_heads", m.n_heads); };
  s.number("n_heads_k", &c.n_heads_k, count_from(1), "key heads; 1 = one key shared by all heads")
      .meaning = [](const ModelConfig& m) { return if_read(m, "n_heads_k", m.n_heads_k); };
  s.number("n_heads_v", &c.n_heads_v, count_from(0), "value heads; 0 = n_heads").meaning =
      [](const ModelConfig& m) { return if_read(m, "n_heads_v", m.heads_v()); };
  s.other("window", WindowTarget{&c.window},
          "keys that a query sees, its own included; \"full\" = all")
      .meaning = [](const ModelConfig& m) { return if_read(m, "window", m.window); };
  s.number("ffn_ratio", &c.ffn_ratio, {.low = 0, .high = 64, .low_open = true},
           "f = ffn_ratio * d, rounded up to a multiple of 8")
      .meaning = [](const ModelConfig& m) { return if_read(m, "ffn_ratio", m.d_ff()); };
  s.number("rope_base", &c.rope_base, above(1), "base of the rotary embedding").meaning =
      [](const ModelConfig& m) { return if_read(m, "rope_base", toml_number(m.rope_base)); };
  s.number("norm_eps", &c.norm_eps, above(0), "epsilon of RMSNorm");
  s.number("key_norm_eps", &c.key_norm_eps, above(0),
           "smallest norm that a key is divided by; 1e-5 in the released checkpoints");
  s.other("tied", &c.tied, "the head is the embedding");
}

void add_data(Section s, DataConfig& c) {
  s.other("train", &c.train, "shards, prefixes or folders of shards");
  s.other("val", &c.val, "the same for validation; empty = none");
  s.text("tokenizer", &c.tokenizer, {}, "SentencePiece model; \"\" = none");
  s.number("seq_len", &c.seq_len, count_from(1), "T, tokens per sequence").at_resume =
      AtResume::refused;
  s.other("reset_documents", &c.reset_documents,
          "state, convolution and attention do not cross document borders");
  s.number("document_delimiter", &c.document_delimiter, count_from(-1),
           "llm.c shards do not mark documents: the token that begins one; -1 = none");
  s.other("shuffle", &c.shuffle, "false = in file order").at_resume = AtResume::refused;
  s.other("verify", &c.verify,
          "read the shards at start and check their checksums; run.output/verified.json records "
          "what was intact: delete it to read everything again")
      .at_resume = AtResume::silent;
}

void add_optimizer(Section s, OptimizerConfig& c) {
  s.text("name", &c.name, optimizer_names(), "update rule").at_resume = AtResume::refused;
  s.number("lr", &c.lr, above(0), "peak learning rate");
  s.number("min_lr", &c.min_lr, at_least(0),
           "learning rate at the end of the decay; unless given, a tenth of lr");
  const ConfigRange beta{.low = 0, .high = 1, .high_open = true};
  s.number("beta1", &c.beta1, beta, "AdamW: decay of the first moment");
  s.number("beta2", &c.beta2, beta, "AdamW: decay of the second moment");
  s.number("eps", &c.eps, above(0), "AdamW: added to the root of the second moment");
  s.number("weight_decay", &c.weight_decay, at_least(0),
           "not applied to biases, norms, residual_weight and an untied embedding");
  s.number("clip", &c.clip, at_least(0), "maximum global gradient norm; 0 = no clipping");
  s.text(
      "schedule", &c.schedule, {"cosine", "wsd", "constant"},
      "after the warm-up: cosine to min_lr; wsd = stable, then 1 - sqrt decay to min_lr: choose it "
      "for runs that may be extended, because a cosine depends on run.steps from its first step");
  s.number("warmup_steps", &c.warmup_steps, count_from(0), "linear warm-up from 0 to lr");
  s.number("decay_steps", &c.decay_steps, count_from(0),
           "wsd: length of the final decay; 0 = a tenth of the steps");
}

void add_run(Section s, RunConfig& c) {
  s.text("output", &c.output, {}, "folder of checkpoints, metrics.jsonl and config.toml")
      .at_resume = AtResume::silent;
  s.number("steps", &c.steps, count_from(1), "optimizer steps");
  s.number("global_batch", &c.global_batch, count_from(1),
           "sequences per optimizer step, over all ranks");
  s.number("micro_batch", &c.micro_batch, count_from(0),
           "sequences per forward pass and rank; 0 = global_batch / ranks")
      .at_resume = AtResume::rounded;
  s.number("seed", &c.seed, between(0, kMostInteger), "of initialisation and data order")
      .at_resume = AtResume::refused;
  s.text("compute", &c.compute, {"auto", "f32", "bf16"},
         "type of matrix products; auto = bf16 on devices with native bf16 products, "
         "resolved when a run begins and kept when it resumes")
      .at_resume = AtResume::other_compute;
  s.text("device", &c.device, {"auto", "cpu", "cuda"},
         "where the model runs; auto = one GPU per rank if the machine has GPUs, resolved when a "
         "run "
         "begins and kept when it resumes")
      .at_resume = AtResume::rounded;
  s.number("threads", &c.threads, between(0, 4096),
           "per rank; 0 = the cores of this node, or the CPU quota of the container if smaller, "
           "divided by its ranks")
      .at_resume = AtResume::silent;
  s.other("recompute", &c.recompute, "recompute the activations of each block in backward")
      .at_resume = AtResume::silent;
  s.number("eval_every", &c.eval_every, count_from(0),
           "steps between evaluations; 0 = only at the end");
  s.number("eval_windows", &c.eval_windows, count_from(0),
           "validation windows per evaluation; 0 = all of data.val");
  s.number("log_every", &c.log_every, count_from(1),
           "steps between progress lines; metrics.jsonl has every step")
      .at_resume = AtResume::silent;
  s.number("check_every", &c.check_every, count_from(0),
           "steps between checks that all ranks hold the same parameters; 0 = at start only");
  s.number("max_skipped", &c.max_skipped, count_from(0),
           "consecutive non-finite steps before the run stops");
  s.number("peak_gflops", &c.peak_gflops, at_least(0), "per rank, for MFU; 0 = measured at start")
      .at_resume = AtResume::silent;
}

void add_checkpoint(Section s, CheckpointConfig& c) {
  s.number("every", &c.every, count_from(0),
           "steps between checkpoints; 0 = only at the end and on signals");
  s.number("keep_last", &c.keep_last, count_from(0),
           "number of newest checkpoints to keep; 0 = all");
  s.number("keep_every", &c.keep_every, count_from(0),
           "checkpoints at multiples of this are kept too; 0 = none");
}

}  // namespace

bool ConfigRange::contains(double x) const {
  return std::isfinite(x) && (low_open ? x > low : x >= low) && (high_open ? x < high : x <= high);
}

std::string ConfigRange::text() const {
  if (std::isinf(low) && std::isinf(high)) return "finite";
  if (std::isinf(high)) return (low_open ? "above " : "at least ") + short_number(low);
  return concat("in ", low_open ? "(" : "[", short_number(low), ", ", short_number(high),
                high_open ? ")" : "]");
}

std::string ConfigField::expected() const {
  const auto integer = [this](auto*) { return "an integer " + range.text(); };
  return std::visit(
      Overloaded{[&](int64_t* p) { return integer(p); }, [&](int* p) { return integer(p); },
                 [&](uint64_t* p) { return integer(p); },
                 [&](double*) { return "a number " + range.text(); },
                 [](bool*) { return std::string("true or false"); },
                 [&](std::string*) {
                   std::vector<std::string> quoted;
                   for (const std::string& choice : choices) quoted.push_back(toml_string(choice));
                   return choices.empty() ? std::string("a string") : join_or(quoted);
                 },
                 [](std::vector<std::string>*) { return std::string("a list of strings"); },
                 [](WindowTarget) {
                   return concat("an integer in [1, ", kMaxSize, "], or \"full\" for no window");
                 }},
      target);
}

std::string ConfigField::toml_value() const {
  return std::visit(
      Overloaded{
          [](int64_t* p) { return std::to_string(*p); }, [](int* p) { return std::to_string(*p); },
          [](uint64_t* p) { return std::to_string(*p); }, [](double* p) { return toml_number(*p); },
          [](bool* p) { return std::string(*p ? "true" : "false"); },
          [](std::string* p) { return toml_string(*p); },
          [](std::vector<std::string>* p) {
            std::string text = "[";
            for (size_t i = 0; i < p->size(); ++i)
              text += (i > 0 ? ", " : "") + toml_string((*p)[i]);
            return text + "]";
          },
          [](WindowTarget w) {
            return *w.value == kFullWindow ? "\"full\"" : std::to_string(*w.value);
          }},
      target);
}

std::vector<ConfigField> config_fields(Config& config) {
  std::vector<ConfigField> fields;
  add_model({fields, "model", AtResume::refused}, config.model);
  add_data({fields, "data"}, config.data);
  add_optimizer({fields, "optimizer"}, config.optimizer);
  add_run({fields, "run"}, config.run);
  add_checkpoint({fields, "checkpoint"}, config.checkpoint);
  return fields;
}

std::span<const std::string> config_sections() { return kSections; }

std::string toml_number(double value) {
  std::array<char, 32> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  std::string text(buffer.data(), end);
  // TOML reads a number without point or exponent as an integer.
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string toml_string(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      constexpr const char* kHex = "0123456789ABCDEF";
      quoted += "\\u00";
      quoted += kHex[byte >> 4];
      quoted += kHex[byte & 15];
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

}  // namespace rodimus
