#include "train/run_state.h"

#include <nlohmann/json.hpp>

#include "kernels/check.h"

namespace rodimus {

uint64_t RunState::samples_left_out() const {
  uint64_t samples = 0;
  for (const LeftOut& part : left_out) samples += part.to - part.from;
  return samples;
}

std::string state_json(const RunState& state) {
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
  return json.dump();
}

RunState run_state(const CheckpointReader& checkpoint) {
  const TrainState& stored = checkpoint.state();
  RunState state;
  state.step = stored.step;
  state.sample = stored.sample;
  try {
    const auto json = nlohmann::json::parse(stored.state_json);
    json.at("updates").get_to(state.updates);
    json.at("skipped").get_to(state.skipped);
    json.at("skipped_in_a_row").get_to(state.skipped_in_a_row);
    json.at("evaluated_step").get_to(state.evaluated_step);
    json.at("data").get_to(state.data);
    // Checkpoints of version 0.1 have no more than that.
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

}  // namespace rodimus
