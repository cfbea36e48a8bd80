// A small model with odd shapes and gaps, whose values are a function of (group, tensor, index):
// check_h5py.py recomputes the same function.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "tests/support/failure_of.h"
#include "tests/support/temporary_folder.h"

namespace rodimus::testing {

inline FlatLayout example_layout() {
  FlatLayout layout;
  const auto add = [&](const char* name, std::vector<int64_t> shape) {
    layout.tensors.push_back({name, std::move(shape), layout.size});
    layout.size = (layout.size + layout.tensors.back().numel() + 15) / 16 * 16;
  };
  add("embedding.weight", {7, 5});
  add("blocks.0.mixer.conv.weight", {48, 1, 4});
  add("blocks.0.norm.weight", {3});
  add("blocks.0.mixer.residual_weight", {1});
  add("blocks.0.cube", {5, 6, 7});
  add("head.weight", {13, 11});
  return layout;
}

// Exact in f32, so Python computes the same number.
inline float example_value(const std::string& group, const std::string& tensor, int64_t index) {
  uint32_t hash = 2166136261u;  // FNV-1a
  for (const char c : group + "/" + tensor) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  hash += static_cast<uint32_t>(index) * 2654435761u;
  return static_cast<float>(hash >> 8) * 0x1p-24f - 0.5f;
}

inline std::vector<float> example_tensor(const std::string& group, const TensorEntry& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.numel()));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = example_value(group, tensor.name, static_cast<int64_t>(i));
  return values;
}

// Elements [range.begin, range.end) of the flat array, zeros in the gaps.
inline std::vector<float> example_flat(const std::string& group, const FlatLayout& layout,
                                       Range range) {
  std::vector<float> flat(static_cast<size_t>(layout.size), 0.0f);
  for (const TensorEntry& tensor : layout.tensors) {
    const std::vector<float> values = example_tensor(group, tensor);
    std::copy(values.begin(), values.end(), flat.begin() + tensor.offset);
  }
  return {flat.begin() + range.begin, flat.begin() + range.end};
}

inline const std::vector<std::string> kGroups = {"params", "adam_m", "adam_v"};

inline TrainState example_state(int64_t step) {
  std::string long_text(70000, '#');  // longer than an HDF5 attribute may be
  long_text += "\nname = \"example\"\n";
  return {.step = step,
          .sample = 0xfedcba9876543210u,
          .state_json = R"({"seed": 17, "note": "µ"})",
          .config_toml = long_text,
          .tokenizer_hash = "0123abcd"};
}

// A rank's share of the example, which must live as long as a save needs it.
struct ExampleArrays {
  ExampleArrays(const FlatLayout& layout, Range owned) {
    for (const std::string& group : kGroups) values.push_back(example_flat(group, layout, owned));
    for (size_t i = 0; i < kGroups.size(); ++i) arrays.push_back({kGroups[i], values[i].data()});
  }
  std::vector<std::vector<float>> values;
  std::vector<OwnedArray> arrays;
};

inline std::filesystem::path save_example(const std::filesystem::path& run_folder, int64_t step,
                                          Range owned, Communicator& communicator) {
  const FlatLayout layout = example_layout();
  const ExampleArrays example(layout, owned);
  return save_checkpoint(run_folder, example_state(step), layout, owned, example.arrays,
                         communicator);
}

// Saves with one rank.
inline std::filesystem::path save_example(const std::filesystem::path& run_folder, int64_t step) {
  const auto single = make_single();
  return save_example(run_folder, step, {0, example_layout().size}, *single);
}

inline void expect_example(const CheckpointReader& reader, Range range) {
  for (const std::string& group : kGroups) {
    std::vector<float> got(static_cast<size_t>(range.size()), -9.0f);
    reader.read(group, range, got.data());
    ASSERT_EQ(got, example_flat(group, example_layout(), range))
        << group << " [" << range.begin << ", " << range.end << ")";
  }
}

inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace rodimus::testing
