// Reading safetensors: values of every type, and one clear line for every kind of damage.
#include "interop/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/support/failure_of.h"
#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using rodimus::testing::failure_of;

class Safetensors : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& content) {
    testing::write_bytes(folder / name, content);
    return folder / name;
  }

  testing::TemporaryFolder folder;
};

std::string length_of(uint64_t length) {
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  return text;
}

std::string file_of(const std::string& header, const std::string& data) {
  return length_of(header.size()) + header + data;
}

json entry(const std::string& type, std::vector<int64_t> shape, uint64_t begin, uint64_t end) {
  return {{"dtype", type}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string refusal(const json& header, uint64_t data_bytes) {
  return failure_of([&] { parse_safetensors_header(header.dump(), data_bytes, "x.safetensors"); });
}

TEST_F(Safetensors, ReadsTheThreeTypes) {
  const std::vector<float> wide{1.5f, -0.0f, 3e38f, 1e-40f};
  // 1, -2.5, 0.1 rounded, NaN
  const std::vector<uint16_t> brain{0x3f80, 0xc020, 0x3dcd, 0x7fc0};
  // 1, -2.5, the largest, the smallest normal, the smallest and largest subnormal, -0, infinity
  const std::vector<uint16_t> half{0x3c00, 0xc100, 0x7bff, 0x0400, 0x0001, 0x83ff, 0x8000, 0x7c00};
  const json header{{"__metadata__", {{"format", "pt"}}},
                    {"h", entry("F16", {2, 4}, 24, 40)},
                    {"w", entry("F32", {4}, 0, 16)},
                    {"b", entry("BF16", {2, 2}, 16, 24)}};
  // Padded with blanks, as the writers do.
  const SafetensorsFile file(
      write("a.safetensors",
            file_of(header.dump() + "   ", bytes_of(wide) + bytes_of(brain) + bytes_of(half))));
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.tensors()[0].name, "w");
  EXPECT_EQ(file.tensors()[1].describe(), "BF16 (2, 2)");

  std::vector<float> got(4);
  file.read(file.tensors()[0], 0, 4, got.data());
  EXPECT_EQ(std::memcmp(got.data(), wide.data(), 16), 0);
  file.read(file.tensors()[1], 0, 4, got.data());
  EXPECT_EQ(got[0], 1.0f);
  EXPECT_EQ(got[1], -2.5f);
  EXPECT_EQ(got[2], 0x1.9ap-4f);
  EXPECT_TRUE(std::isnan(got[3]));
  got.resize(8);
  file.read(file.tensors()[2], 0, 8, got.data());
  EXPECT_EQ(got, (std::vector<float>{1, -2.5f, 65504, 0x1p-14f, 0x1p-24f, -0x1.ff8p-15f, -0.0f,
                                     std::numeric_limits<float>::infinity()}));
  EXPECT_TRUE(std::signbit(got[6]));
  // A part from the middle.
  got.assign(3, 0);
  file.read(file.tensors()[2], 1, 3, got.data());
  EXPECT_EQ(got, (std::vector<float>{-2.5f, 65504, 0x1p-14f}));
  EXPECT_THROW(file.read(file.tensors()[2], 6, 3, got.data()), Error);
}

TEST_F(Safetensors, ScalarsAndEmptyTensorsAreTensors) {
  const json header{{"scalar", entry("F32", {}, 0, 4)}, {"empty", entry("F32", {0, 5}, 4, 4)}};
  const auto tensors = parse_safetensors_header(header.dump(), 4, "x");
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].numel(), 1);
  EXPECT_EQ(tensors[1].numel(), 0);
}

TEST(SafetensorsHeader, DamageIsNamed) {
  const json good = entry("F32", {2, 3}, 0, 24);
  EXPECT_EQ(refusal({{"a", good}}, 24), "nothing was thrown");
  EXPECT_NE(refusal({{"a", good}}, 20).find("x.safetensors: truncated: a ends at byte 24 of 20"),
            std::string::npos);
  EXPECT_NE(refusal({{"a", good}}, 30).find("its last 6 bytes belong to no tensor"),
            std::string::npos);
  EXPECT_NE(refusal({{"a", good}, {"b", entry("F32", {6}, 20, 44)}}, 44)
                .find("b begins at byte 20, inside the tensor before it, which ends at 24"),
            std::string::npos);
  EXPECT_NE(refusal({{"a", good}, {"b", entry("F32", {6}, 0, 24)}}, 24).find("inside the tensor"),
            std::string::npos);
  EXPECT_NE(refusal({{"a", good}, {"b", entry("F32", {1}, 28, 32)}}, 32)
                .find("bytes 24 to 28, before b, belong to no tensor"),
            std::string::npos);
  EXPECT_NE(refusal({{"a", entry("F32", {2, 4}, 0, 24)}}, 24)
                .find("a takes 24 bytes, but F32 (2, 4) needs 32"),
            std::string::npos);
  EXPECT_NE(refusal({{"a", entry("F6", {2}, 0, 24)}}, 24).find("unknown type F6"),
            std::string::npos);
  EXPECT_NE(refusal({{"a", entry("F32", {int64_t{1} << 62, 8}, 0, 24)}}, 24).find("63 bits"),
            std::string::npos);
  EXPECT_NE(refusal({{"a", entry("F32", {-2, -3}, 0, 24)}}, 24).find("no size"), std::string::npos);
  EXPECT_NE(refusal({{"a", entry("F32", {6}, 24, 0)}}, 24).find("end before they begin"),
            std::string::npos);
}

TEST(SafetensorsHeader, EntriesOfTheWrongKindAreNamed) {
  const json good = entry("F32", {2, 3}, 0, 24);
  const auto with = [&](const char* key, const json& value) {
    json changed = good;
    changed[key] = value;
    return refusal({{"a", changed}}, 24);
  };
  EXPECT_NE(refusal({{"a", 3}}, 24).find("is not an object"), std::string::npos);
  EXPECT_NE(with("dtype", 4).find("\"dtype\" is not a string"), std::string::npos);
  EXPECT_NE(with("shape", 6).find("\"shape\" is not an array"), std::string::npos);
  EXPECT_NE(with("shape", {2.0, 3}).find("no size"), std::string::npos);
  EXPECT_NE(with("data_offsets", {0}).find("not a pair"), std::string::npos);
  EXPECT_NE(with("data_offsets", {0, "24"}).find("no position"), std::string::npos);
  EXPECT_NE(with("data_offsets", {-24, 0}).find("no position"), std::string::npos);
  EXPECT_NE(refusal(json::array(), 0).find("not a JSON object"), std::string::npos);
}

// Readers differ in which of two entries counts, so neither can be trusted.
TEST(SafetensorsHeader, NamesThatAppearTwiceAreRefused) {
  const auto refused = [](const std::string& header) {
    return failure_of([&] { parse_safetensors_header(header, 4, "x.safetensors"); });
  };
  const std::string a = entry("F32", {1}, 0, 4).dump();
  EXPECT_EQ(refused("{\"a\":" + a + "}"), testing::kNoFailure);
  EXPECT_NE(refused("{\"a\":" + a + ",\"a\":" + a + "}")
                .find("x.safetensors: its header has two entries a"),
            std::string::npos);
  EXPECT_NE(
      refused("{\"a\":" + a.substr(0, a.size() - 1) + ",\"shape\":[1]}}").find("two entries shape"),
      std::string::npos);
  // The same name in two objects is no repetition.
  EXPECT_EQ(refused("{\"__metadata__\":{\"a\":\"\"},\"a\":" + a + "}"), testing::kNoFailure);
}

TEST_F(Safetensors, FilesThatAreNoneAreRefused) {
  const auto refused = [&](const std::string& content) {
    const fs::path path = write("bad.safetensors", content);
    const std::string why = failure_of([&] { SafetensorsFile{path}; });
    EXPECT_NE(why.find(path.string()), std::string::npos) << why;
    EXPECT_EQ(why.find('\n'), std::string::npos) << why;
    return why;
  };
  EXPECT_NE(refused("").find("only 0 bytes"), std::string::npos);
  EXPECT_NE(refused(length_of(uint64_t{1} << 60) + "{}").find("1152921504606846976 bytes"),
            std::string::npos);
  EXPECT_NE(refused(length_of(~uint64_t{0}) + "{}").find("18446744073709551615"),
            std::string::npos);
  EXPECT_NE(refused(length_of(3) + "{}").find("truncated"), std::string::npos);
  EXPECT_NE(refused(file_of("{\"a\":", "")).find("not a JSON object"), std::string::npos);
  EXPECT_NE(failure_of([&] { SafetensorsFile{folder / "none"}; }).find("No such file"),
            std::string::npos);
  EXPECT_NE(failure_of([&] { SafetensorsFile{folder.path()}; }).find("not a regular file"),
            std::string::npos);
}

class Weights : public Safetensors {
 protected:
  Weights() {
    write("model-1.safetensors", file_of(json{{"a", entry("F32", {1}, 0, 4)}}.dump(), "1234"));
    write("model-2.safetensors", file_of(json{{"b", entry("BF16", {2}, 0, 4)}}.dump(), "1234"));
  }
  std::string with_index(const json& map) {
    write("model.safetensors.index.json", json{{"metadata", {}}, {"weight_map", map}}.dump());
    return failure_of([&] { WeightFolder{folder.path()}; });
  }
};

TEST_F(Weights, ShardsAreFoundByTheIndex) {
  EXPECT_EQ(with_index({{"a", "model-1.safetensors"}, {"b", "model-2.safetensors"}}),
            "nothing was thrown");
  const WeightFolder weights(folder.path());
  ASSERT_EQ(weights.tensors().size(), 2u);
  EXPECT_EQ(weights.tensors().at("b").file->path().filename(), "model-2.safetensors");
  EXPECT_EQ(weights.tensors().at("b").tensor->type, "BF16");
}

TEST_F(Weights, IndexAndShardsHaveToAgree) {
  EXPECT_NE(with_index({{"a", "model-1.safetensors"}, {"c", "model-2.safetensors"}})
                .find("c is not in model-2.safetensors"),
            std::string::npos);
  EXPECT_NE(with_index({{"a", "model-2.safetensors"}, {"b", "model-1.safetensors"}})
                .find("a is not in model-2.safetensors"),
            std::string::npos);
  EXPECT_NE(with_index({{"a", "model-1.safetensors"}, {"b", "model-3.safetensors"}})
                .find("model-3.safetensors: cannot open it"),
            std::string::npos);
  write("model-2.safetensors", file_of(json{{"a", entry("BF16", {2}, 0, 4)}}.dump(), "1234"));
  EXPECT_NE(with_index({{"a", "model-1.safetensors"}, {"b", "model-2.safetensors"}})
                .find("a is also in model-1.safetensors"),
            std::string::npos);
  write("model-2.safetensors",
        file_of(json{{"b", entry("F16", {1}, 0, 2)}, {"extra", entry("F16", {1}, 2, 4)}}.dump(),
                "1234"));
  EXPECT_NE(with_index({{"a", "model-1.safetensors"}, {"b", "model-2.safetensors"}})
                .find("extra of model-2.safetensors is not listed"),
            std::string::npos);
  EXPECT_NE(with_index({{"a", "../model-1.safetensors"}}).find("a file in the same folder"),
            std::string::npos);
  EXPECT_NE(with_index({{"a", 1}}).find("a file in the same folder"), std::string::npos);
  EXPECT_NE(with_index(json::object()).find("no object \"weight_map\""), std::string::npos);
}

TEST_F(Weights, AFolderWithoutWeightsSaysWhatItExpected) {
  const auto refusal_of = [&] { return failure_of([&] { WeightFolder{folder.path()}; }); };
  EXPECT_NE(refusal_of().find("neither model.safetensors nor model.safetensors.index.json"),
            std::string::npos);
  EXPECT_EQ(refusal_of().find("pickle"), std::string::npos);
  write("pytorch_model.bin", "");
  EXPECT_NE(refusal_of().find("save_pretrained"), std::string::npos);
}

}  // namespace
}  // namespace rodimus
