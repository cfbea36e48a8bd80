#include "data/validation_split.h"

#include <gtest/gtest.h>

#include "data/utf8.h"
#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

using testing::TemporaryFolder;
using testing::write_bytes;

struct Parts {
  std::vector<std::string> train, val;
  std::optional<ValidationCut> cut;
};

Parts split(const std::vector<std::string>& documents, double fraction, uint64_t seed = 0) {
  TemporaryFolder folder;
  std::string text;
  for (const std::string& document : documents) text += document + "|";
  write_bytes(folder / "x.txt", text);
  TextSource source({.inputs = {folder / "x.txt"}, .separator = "|"});
  ValidationSplit splitter(source, fraction, seed);
  Parts parts;
  Document document;
  bool in_val = false;
  while (splitter.next(document, in_val)) {
    (in_val ? parts.val : parts.train).push_back(document.text);
  }
  EXPECT_FALSE(splitter.next(document, in_val)) << "stays at the end";
  parts.cut = splitter.cut();
  return parts;
}

using Strings = std::vector<std::string>;

TEST(ValidationSplit, OneDocumentIsCutAtTheNearestLineEnd) {
  const std::string line = "0123456789 12345678\n";  // 20 bytes
  std::string text;
  for (int i = 0; i < 10; ++i) text += line;
  for (const auto& [fraction, lines] : std::vector<std::pair<double, int>>{
           {0.1, 1}, {0.14, 1}, {0.16, 2}, {0.5, 5}, {0.9, 9}, {0.01, 1}, {0.99, 9}}) {
    const Parts parts = split({text}, fraction);
    ASSERT_TRUE(parts.cut.has_value()) << fraction;
    EXPECT_EQ(parts.cut->at, "a line end");
    EXPECT_EQ(parts.train, Strings{text.substr(static_cast<size_t>(20 * lines))}) << fraction;
    EXPECT_EQ(parts.val, Strings{text.substr(200 - static_cast<size_t>(20 * lines))}) << fraction;
    EXPECT_EQ(parts.cut->val_bytes, static_cast<uint64_t>(20 * lines));
  }
}

TEST(ValidationSplit, OnlyWhereTrainOrValWouldBeEmpty) {
  const Strings three = {"one\none\n", "two\ntwo\n", "three\nthree\n"};
  for (const double fraction : {0.02, 0.3, 0.7}) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const Parts parts = split(three, fraction, seed);
      Strings train, val;
      for (uint64_t i = 0; i < 3; ++i) {
        (in_validation(i, seed, fraction) ? val : train).push_back(three[i]);
      }
      if (!train.empty() && !val.empty()) {
        EXPECT_EQ(parts.train, train);
        EXPECT_EQ(parts.val, val);
        EXPECT_FALSE(parts.cut.has_value());
        continue;
      }
      if (parts.cut) {
        EXPECT_EQ(parts.cut->document, 2u);
        EXPECT_EQ(parts.train.back(), "three\n");
        EXPECT_EQ(parts.val.back(), "three\n");
        EXPECT_EQ(parts.train.size() + parts.val.size(), 4u);
      } else {
        EXPECT_LT(fraction * 29, 1) << "less than one byte would be val";
      }
    }
  }
  EXPECT_EQ(split(three, 0).train, three);
  EXPECT_EQ(split({}, 0.5).train, Strings{});
}

TEST(ValidationSplit, TextWithoutLines) {
  EXPECT_EQ(split({"ab cd ef gh ij kl"}, 0.3).val, Strings{"ij kl"});
  EXPECT_EQ(split({"ab cd ef gh ij kl"}, 0.3).cut->at, "a space");
  // A title must not turn the one long line below it into val.
  EXPECT_EQ(split({"t\nab cd ef gh ij kl"}, 0.1).val, Strings{"kl"});
  const Parts parts = split({"\xe4\xb8\xad\xe6\x96\x87\xe4\xb8\xad\xe6\x96\x87"}, 0.4);
  EXPECT_EQ(parts.cut->at, "a character");
  EXPECT_EQ(parts.val, Strings{"\xe6\x96\x87"});
  EXPECT_EQ(parts.train, Strings{"\xe4\xb8\xad\xe6\x96\x87\xe4\xb8\xad"});
  // Nothing to cut: a single character, or only one that is not white space.
  for (const char* text : {"x", "\xe4\xb8\xad", "\n\nx\n\n\n\n"}) {
    EXPECT_FALSE(split({text}, 0.5).cut.has_value()) << text;
  }
}

TEST(ValidationSplit, NoPartIsBlankOrBroken) {
  const std::string text = "  a \xc3\xa9\n\n\nb\xe4\xb8\xad \n\nc \n ";
  for (int i = 1; i < 100; ++i) {
    const Parts parts = split({text}, i * 0.01);
    if (!parts.cut) continue;
    EXPECT_EQ(parts.train[0] + parts.val[0], text);
    for (const std::string& part : {parts.train[0], parts.val[0]}) {
      EXPECT_NE(part.find_first_not_of(" \n"), std::string::npos) << i;
      EXPECT_EQ(find_invalid_utf8(part), std::string::npos) << i;
    }
  }
}

}  // namespace
}  // namespace rodimus
