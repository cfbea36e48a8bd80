#include "train/run_state.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "kernels/memory.h"
#include "kernels/reduce.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

// Reads elements `range` of one array of `checkpoint`, numbered as in `layout`.
void read_array(Exec& exec, const CheckpointReader& checkpoint, const std::string& group,
                const FlatLayout& layout, Range range, const Tensor& into) {
  constexpr int64_t kPiece = int64_t{1} << 22;  // elements on the host at a time
  std::vector<float> piece(static_cast<size_t>(std::min(kPiece, range.size())));
  for (int64_t begin = range.begin; begin < range.end; begin += kPiece) {
    const int64_t end = std::min(begin + kPiece, range.end);
    checkpoint.read(group, layout, {begin, end}, piece.data());
    Tensor part = into.slice(begin - range.begin, {end - begin});
    on_device(exec, [&](auto& backend) {
      memory::upload(backend, part.raw(), piece.data(), part.bytes());
    });
  }
}

bool is_finite(Exec& exec, const Tensor& x) {
  double squares = 0;
  on_device(exec,
            [&](auto& backend) { squares = sum_of_squares(backend, x.data<float>(), x.numel()); });
  return std::isfinite(squares);
}

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

uint64_t RunState::samples_left_out() const {
  uint64_t samples = 0;
  for (const LeftOut& part : left_out) samples += part.to - part.from;
  return samples;
}

TrainState stored_form(const RunState& state, const ResolvedConfig& config,
                       std::string tokenizer_hash) {
  nlohmann::json json{{"updates", state.updates},
                      {"skipped", state.skipped},
                      {"skipped_in_a_row", state.skipped_in_a_row},
                      {"evaluated_step", state.evaluated_step},
                      {"data", state.data},
                      {"init_from", state.init_from},
                      {"init_moments", state.init_moments},
                      {"threads", state.threads},
                      {"left_out", nlohmann::json::array()}};
  for (const LeftOut& part : state.left_out) {
    json["left_out"].push_back(
        {{"step", part.step}, {"steps", part.steps}, {"from", part.from}, {"to", part.to}});
  }
  return {.step = state.step,
          .sample = state.sample,
          .state_json = to_text(json),
          .config_toml = to_toml(config),
          .tokenizer_hash = std::move(tokenizer_hash)};
}

RunState run_state(const CheckpointReader& checkpoint) {
  const TrainState& stored = checkpoint.state();
  RunState state;
  state.step = stored.step;
  state.sample = stored.sample;
  try {
    const auto json = parse_json(stored.state_json);
    json.at("updates").get_to(state.updates);
    json.at("skipped").get_to(state.skipped);
    json.at("skipped_in_a_row").get_to(state.skipped_in_a_row);
    json.at("evaluated_step").get_to(state.evaluated_step);
    json.at("data").get_to(state.data);
    // Checkpoints of version 0.1 have only the fields above.
    state.init_from = json.value("init_from", "");
    state.init_moments = json.value("init_moments", false);
    state.threads = json.value("threads", int64_t{0});
    for (const auto& part : json.value("left_out", nlohmann::json::array())) {
      state.left_out.push_back({part.at("step").get<int64_t>(), part.at("steps").get<int64_t>(),
                                part.at("from").get<uint64_t>(), part.at("to").get<uint64_t>()});
    }
  } catch (const nlohmann::json::exception& error) {
    fail(checkpoint.folder().native(),
         ": its state_json is not that of a training run: ", error.what());
  }
  return state;
}

Config config_of(const CheckpointReader& checkpoint) {
  return parse_config(checkpoint.state().config_toml,
                      "configuration in " + checkpoint.folder().string(), {});
}

FlatLayout layout_of(const ParameterBuffers& buffers) {
  FlatLayout layout;
  layout.size = buffers.values.numel();
  for (const Parameter* p : buffers.parameters)
    layout.tensors.push_back({p->name, p->shape, p->offset});
  std::sort(layout.tensors.begin(), layout.tensors.end(),
            [](const TensorEntry& a, const TensorEntry& b) { return a.offset < b.offset; });
  return layout;
}

fs::path save_run(const fs::path& output, const TrainState& stored, Exec& exec,
                  const ParameterBuffers& buffers, Optimizer& optimizer,
                  Communicator& communicator) {
  if (!is_finite(exec, buffers.values)) {
    throw NotFinite(concat("the parameters are not finite after step ", stored.step,
                           "; not saved. Lower optimizer.lr and resume the last checkpoint"));
  }
  const Range owned =
      owned_range(buffers.values.numel(), communicator.rank(), communicator.world_size());
  std::vector<OptimizerState> parts = optimizer.state();
  parts.insert(parts.begin(), {"params", buffers.values, {0, buffers.values.numel()}});
  std::vector<OwnedArray> arrays;
  for (OptimizerState& part : parts) {
    CHECK(part.owned.begin <= owned.begin && owned.end <= part.owned.end, "save_run: elements ",
          owned.begin, " to ", owned.end, " of ", part.name, " lie on another rank");
    part.tensor = on_host(exec, part.tensor.slice(owned.begin - part.owned.begin, {owned.size()}));
    arrays.push_back({part.name, std::as_const(part.tensor).data<float>()});
  }
  return save_checkpoint(output, stored, layout_of(buffers), owned, arrays, communicator);
}

void restore(Exec& exec, const CheckpointReader& checkpoint, ParameterBuffers& buffers,
             Optimizer& optimizer) {
  read_parameters(exec, checkpoint, buffers);
  const FlatLayout layout = layout_of(buffers);
  const std::vector<std::string>& groups = checkpoint.groups();
  for (const OptimizerState& part : optimizer.state()) {
    if (std::find(groups.begin(), groups.end(), part.name) == groups.end()) {
      if (groups.size() == 1) {
        fail(checkpoint.folder().string(),
             " holds parameters only, as `rodimus import` writes them: it cannot be resumed; start "
             "a new run with --init-from, without --init-moments");
      }
      fail(checkpoint.folder().string(), " has no ", part.name,
           ": it was written with another optimizer; set optimizer.name back, or start a new run "
           "with --init-from");
    }
    read_array(exec, checkpoint, part.name, layout, part.owned, part.tensor);
    if (!is_finite(exec, part.tensor)) {
      fail(checkpoint.folder().string(), ": the moments of the optimizer (", part.name,
           ") are not finite; use an earlier checkpoint");
    }
  }
  optimizer.set_updates(run_state(checkpoint).updates);
}

void read_parameters(Exec& exec, const CheckpointReader& checkpoint, ParameterBuffers& buffers) {
  const FlatLayout layout = layout_of(buffers);
  require_same_tensors(layout, checkpoint);
  read_array(exec, checkpoint, "params", layout, {0, layout.size}, buffers.values);
  require_finite(exec, buffers, checkpoint.folder());
  refresh_bf16_copy(exec, buffers);
}

}  // namespace rodimus
