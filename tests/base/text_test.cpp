// What of users and files goes into messages and JSON.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/words.h"

namespace rodimus {
namespace {

TEST(Json, BytesThatAreNotUtf8DoNotThrow) {
  const std::string path = "runs/caf\xe9";  // Latin-1
  EXPECT_EQ(to_text(nlohmann::json{{"path", path}}), "{\"path\":\"runs/caf\xef\xbf\xbd\"}");
  EXPECT_EQ(to_text(nlohmann::ordered_json{{"path", path}, {"a", 1}}, 1),
            "{\n \"path\": \"runs/caf\xef\xbf\xbd\",\n \"a\": 1\n}");
}

TEST(Json, WhatIsNotJsonIsFound) {
  EXPECT_EQ(parse_json("[1, 2]").size(), 2u);
  for (const char* text : {"", "{", "[1,]", "nan", "{\"a\": 1} x"}) {
    EXPECT_THROW(parse_json(text), nlohmann::json::parse_error) << text;
    EXPECT_TRUE(try_parse_json(text).is_discarded()) << text;
  }
}

TEST(Words, LongTextIsShortenedToOneLine) {
  EXPECT_EQ(shortened("a\nb"), one_line("a\nb"));
  EXPECT_EQ(shortened(std::string(60, 'x')), std::string(60, 'x'));
  std::string expected(60, 'x');
  expected += "...";
  EXPECT_EQ(shortened(std::string(61, 'x')), expected);
}

}  // namespace
}  // namespace rodimus
