#include "train/report/model_card.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/json.h"
#include "layers/blocks.h"

namespace rodimus {
namespace {

using nlohmann::json;

std::optional<double> number(const json& line, const char* key) {
  const auto value = line.find(key);
  if (value == line.end() || !value->is_number()) return {};
  return value->get<double>();
}

using Rows = std::vector<std::pair<std::string, std::string>>;

std::string table(const char* left, const char* right, const Rows& rows) {
  std::string text = fmt::format("| {} | {} |\n|---|---|\n", left, right);
  for (const auto& [key, value] : rows) text += fmt::format("| {} | {} |\n", key, value);
  return text;
}

Rows model_rows(const ModelConfig& model) {
  Rows rows{{"vocabulary", fmt::to_string(model.vocab_size)},
            {"width d", fmt::to_string(model.d_model)},
            {"blocks", fmt::to_string(model.n_layers)},
            {"mixer: channels e, memory m", fmt::format("{}, {}", model.d_inner(), model.mem_size)},
            {"mixer: taps of the convolution, rank of the value gate",
             fmt::format("{}, {}", model.conv_width, model.value_gate_rank())}};
  if (model.block == "rodimus_plus") {
    rows.insert(rows.end(),
                {{"attention: query, key, value heads",
                  fmt::format("{}, {}, {}", model.n_heads, model.n_heads_k, model.heads_v())},
                 {"attention: keys that a query sees, its own included",
                  model.window == kFullWindow ? "all earlier ones" : fmt::to_string(model.window)},
                 {"rotary base", fmt::to_string(model.rope_base)},
                 {"FFN: channels f", fmt::to_string(model.d_ff())}});
  }
  rows.insert(rows.end(), {{"epsilon of the norms, of the keys",
                            fmt::format("{}, {}", model.norm_eps, model.key_norm_eps)},
                           {"head", model.tied ? "the embedding (tied)" : "its own matrix"}});
  return rows;
}

// Nothing for a model that was imported, or not trained yet.
Rows training_rows(const ModelCard& card) {
  const RunState& state = card.state;
  const Config& config = card.config;
  if (state.step == 0) return {};
  const auto samples = static_cast<int64_t>(state.sample - state.samples_left_out());
  Rows rows{{"steps", fmt::to_string(state.step)},
            {"tokens", fmt::to_string(samples * config.data.seq_len)},
            {"tokens of a sequence, sequences of a step",
             fmt::format("{}, {}", config.data.seq_len, config.run.global_batch)}};
  if (!state.init_from.empty())
    rows.emplace_back("started from", "the parameters of an earlier checkpoint");
  const OptimizerConfig& optimizer = config.optimizer;
  rows.emplace_back("optimizer",
                    fmt::format("{}, weight decay {}, gradient norm clipped at {}", optimizer.name,
                                optimizer.weight_decay, optimizer.clip));
  rows.emplace_back("learning rate",
                    fmt::format("{}, peak {}, warm-up {} steps", optimizer.schedule, optimizer.lr,
                                optimizer.warmup_steps));
  rows.emplace_back("type of the matrix products", config.run.compute);
  if (const auto loss = card.figures.train_loss)
    rows.emplace_back("training loss of the last step, nats per token",
                      fmt::format("{:.4f}", *loss));
  if (const auto& found = card.figures.validation) {
    const std::string at =
        found->step == state.step ? "" : fmt::format(" after step {}", found->step);
    rows.emplace_back("validation loss, nats per token" + at, fmt::format("{:.4f}", found->loss));
    rows.emplace_back("validation perplexity" + at, fmt::format("{:.2f}", found->perplexity));
    if (found->bits_per_byte) {
      rows.emplace_back("validation, bits per byte" + at,
                        fmt::format("{:.4f}", *found->bits_per_byte));
    }
  }
  return rows;
}

constexpr const char* kAuthorsUse =
    R"(The folder brings its own model code, which needs PyTorch and transformers (4.40 to 5.x):

```python
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER", trust_remote_code=True)
```
)";

constexpr const char* kFlaUse =
    R"(The weights are in the form of flash-linear-attention, which must be installed and needs a GPU with Triton:

```python
import fla  # registers the model
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER")
```

flash-linear-attention lists its Rodimus as not ready for testing: compare its losses with those of `rodimus eval` before you rely on it.
)";

constexpr std::string_view kTransformersTokenizer = R"(
```python
from transformers import AutoTokenizer  # 4.45 or later
tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_FOLDER", trust_remote_code=True)
ids = tokenizer("Once upon a time").input_ids
```

It gives the ids of the SentencePiece model `{0}`, from which it was made. {2}
)";

constexpr std::string_view kSentencePiece = R"(
There are no tokenizer files for transformers. `{0}` is a SentencePiece model, to be read with the library sentencepiece:

```python
import sentencepiece
tokenizer = sentencepiece.SentencePieceProcessor(model_file="{0}")
ids = {1}tokenizer.encode("Once upon a time")
```

{2}
)";

std::string tokenizer_use(const ModelCard& card) {
  const bool marked = card.begin >= 0;
  return fmt::format(
      fmt::runtime(card.tokenizer_json ? kTransformersTokenizer : kSentencePiece), card.tokenizer,
      marked ? fmt::format("[{}] + ", card.begin) : "",
      marked ? fmt::format("Token {} stood before every document in training{}.", card.begin,
                           card.tokenizer_json ? ", so it is put before a text" : "")
             : "Nothing stood before a document in training.");
}

}  // namespace

RunFigures read_figures(const std::filesystem::path& metrics, int64_t step) {
  RunFigures figures;
  std::ifstream in(metrics);
  for (std::string text; std::getline(in, text);) {
    const json line = try_parse_json(text);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) continue;
    const auto at = line["step"].get<int64_t>();
    const auto kind = line.value("kind", json());
    const auto loss = number(line, "loss");
    if (at > step || !loss) continue;
    if (kind == "train" && at == step) figures.train_loss = loss;
    const auto perplexity = number(line, "perplexity");
    if (kind == "eval" && perplexity)
      figures.validation = {at, *loss, *perplexity, number(line, "bits_per_byte")};
  }
  return figures;
}

std::string format_model_card(const ModelCard& card) {
  const bool fla = card.form == HfForm::fla;
  const ModelConfig& model = card.config.model;
  std::string text = fmt::format(
      "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- {}\n{}---\n\n",
      model.block, fla ? "- flash-linear-attention\n" : "- custom_code\n");
  text += fmt::format("# {}\n\n", card.name);
  text += fmt::format(
      "A {} language model ([arXiv:2410.06577](https://arxiv.org/abs/2410.06577)) of {} "
      "parameters, "
      "stored in {}.\n\n",
      block_type(model.block).title, card.parameters, names_of(card.type).torch);
  text += table("model", "", model_rows(model));
  const Rows training = training_rows(card);
  if (!training.empty()) text += "\n" + table("training", "", training);
  text += "\n## How to load it\n\n";
  text += fla ? kFlaUse : kAuthorsUse;
  if (!card.tokenizer.empty()) text += tokenizer_use(card);
  text += "\n## How it was made\n\nWith rodimus.cpp, by the command\n\n    " + card.command + "\n";
  return text;
}

}  // namespace rodimus
