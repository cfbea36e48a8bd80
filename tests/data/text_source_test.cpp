#include "data/text_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;
using testing::write_bytes;

std::vector<std::string> texts(TextSourceConfig config) {
  TextSource source(std::move(config));
  std::vector<std::string> out;
  for (Document document; source.next(document);) {
    EXPECT_EQ(document.index, out.size());
    out.push_back(document.text);
  }
  return out;
}

TEST(TextSource, FolderInOrderOfPaths) {
  TemporaryFolder folder;
  write_bytes(folder / "b.txt", "bee");
  write_bytes(folder / "sub/deep/a.md", "ay");
  write_bytes(folder / "a.txt", "first");
  write_bytes(folder / "empty.txt", "");
  write_bytes(folder / "blank.txt", " \n\t\n");
  write_bytes(folder / "program.cpp", "int x;");
  TextSource source({.inputs = {folder.path()}});
  EXPECT_EQ(source.files(), 5u);
  EXPECT_EQ(source.total_bytes(), 14u);
  EXPECT_EQ(texts({.inputs = {folder.path()}}), (std::vector<std::string>{"first", "bee", "ay"}));
  EXPECT_EQ(texts({.inputs = {folder / "program.cpp", folder / "b.txt"}}),
            (std::vector<std::string>{"int x;", "bee"}));
  EXPECT_EQ(texts({.inputs = {folder.path()}, .extensions = {".cpp"}}),
            (std::vector<std::string>{"int x;"}));
}

TEST(TextSource, SeparatorsCutWhereverTheyFall) {
  TemporaryFolder folder;
  write_bytes(folder / "x.txt", "one<|end|>two\n<|end|><|end|>three<|en");
  EXPECT_EQ(texts({.inputs = {folder / "x.txt"}, .separator = "<|end|>"}),
            (std::vector<std::string>{"one", "two\n", "three<|en"}));
  // A separator at every position around the border between two reads of 1 MiB.
  for (size_t shift = 0; shift < 10; ++shift) {
    const std::string head((1 << 20) - 5 + shift, 'h');
    write_bytes(folder / "y.txt", head + "<|end|>tail<|end|>" + head + "<|end|>");
    EXPECT_EQ(texts({.inputs = {folder / "y.txt"}, .separator = "<|end|>"}),
              (std::vector<std::string>{head, "tail", head}))
        << shift;
  }
}

TEST(TextSource, Jsonl) {
  TemporaryFolder folder;
  write_bytes(
      folder / "x.jsonl",
      "{\"text\": \"one\\ntwo \\u00e9\", \"id\": 1}\n\n{\"text\": \"\"}\n{\"text\": \" \\n\\t\"}\n"
      "{\"text\": \"three\"}");
  EXPECT_EQ(texts({.inputs = {folder / "x.jsonl"}}),
            (std::vector<std::string>{"one\ntwo é", "three"}));
  write_bytes(folder / "y.dat", "{\"body\": \"b\"}\n");
  EXPECT_EQ(texts({.inputs = {folder / "y.dat"}, .jsonl = true, .json_field = "body"}),
            (std::vector<std::string>{"b"}));
  const auto read = [&](const std::string& second_line) {
    write_bytes(folder / "z.jsonl", "{\"text\": \"a\"}\n" + second_line + "\n");
    return [&] { texts({.inputs = {folder / "z.jsonl"}}); };
  };
  expect_error(read("{\"text\": "), {"z.jsonl", "byte 14", "is not JSON"});
  expect_error(read("[1]"), {"z.jsonl", "byte 14", "not a JSON object"});
  expect_error(read("{\"body\": \"a\"}"), {"z.jsonl", "byte 14", "'text'", "--json-field"});
  expect_error(read("{\"text\": 5}"), {"z.jsonl", "byte 14", "'text'"});
  expect_error(read("{\"text\": \"\\ud800\"}"), {"z.jsonl", "byte 14"});
  expect_error(read("{\"text\": \"\xff\"}"), {"z.jsonl", "invalid UTF-8 at byte 24"});
}

TEST(TextSource, InvalidUtf8) {
  TemporaryFolder folder;
  write_bytes(folder / "x.txt", "good|bad \xff\xc3|fine");
  TextSourceConfig config{.inputs = {folder / "x.txt"}, .separator = "|"};
  expect_error([&] { texts(config); }, {"x.txt", "byte 9", "--invalid-utf8"});
  config.invalid_utf8 = InvalidUtf8::skip;
  EXPECT_EQ(texts(config), (std::vector<std::string>{"good", "fine"}));
  config.invalid_utf8 = InvalidUtf8::replace;
  EXPECT_EQ(texts(config),
            (std::vector<std::string>{"good", "bad \xef\xbf\xbd\xef\xbf\xbd", "fine"}));
  TextSource source(config);
  for (Document document; source.next(document);) {
  }
  EXPECT_EQ(source.replaced(), 1u);
  EXPECT_EQ(source.skipped(), 0u);
  EXPECT_EQ(source.bytes_read(), source.total_bytes());
}

// An escaped half of a UTF-16 pair: valid JSON, but not representable in UTF-8.
TEST(TextSource, UnpairedSurrogatesInJson) {
  TemporaryFolder folder;
  write_bytes(folder / "x.jsonl",
              "{\"text\": \"one\"}\n{\"text\": \"cut \\ud83d\"}\n{\"text\": \"\\udE00 "
              "\\ud83d\\ud83d\\ude00\"}\n"
              "{\"text\": \"\\\\ud83d is text, \\ud83d\\ude00 a pair\", \"id\": \"\\udfff\"}\n");
  TextSourceConfig config{.inputs = {folder / "x.jsonl"}};
  expect_error([&] { texts(config); },
               {"x.jsonl:2", "unpaired surrogate", "byte 16", "--invalid-utf8"});
  const std::string last = "\\ud83d is text, \xf0\x9f\x98\x80 a pair", fffd = "\xef\xbf\xbd";
  config.invalid_utf8 = InvalidUtf8::skip;
  EXPECT_EQ(texts(config), (std::vector<std::string>{"one", last}));
  config.invalid_utf8 = InvalidUtf8::replace;
  EXPECT_EQ(texts(config),
            (std::vector<std::string>{"one", "cut " + fffd, fffd + " " + fffd + "\xf0\x9f\x98\x80",
                                      last}));
  TextSource source(config);
  for (Document document; source.next(document);) {
  }
  EXPECT_EQ(source.replaced(), 2u) << "what is in other fields does not matter";
  EXPECT_EQ(source.invalid_utf8().first,
            (std::vector<std::string>{folder / "x.jsonl:2", folder / "x.jsonl:3"}));
  // Also broken in another way: not JSON.
  write_bytes(folder / "x.jsonl", "{\"text\": \"\\ud83d\"\n");
  expect_error([&] { texts(config); }, {"x.jsonl:1", "is not JSON"});
}

TEST(TextSource, BadLines) {
  TemporaryFolder folder;
  std::string lines =
      "{\"text\": \"a\"}\n\n{\"text\": null}\n{\"text\": \n[]\n{\"id\": 1}\n{\"text\": 7}\n";
  for (int i = 0; i < 4; ++i) lines += "x\n";
  write_bytes(folder / "x.jsonl", lines + "{\"text\": \"b\"}");
  TextSourceConfig config{.inputs = {folder / "x.jsonl"}};
  expect_error([&] { texts(config); }, {"x.jsonl:3", "null", "'text'", "--bad-lines skip"});
  config.bad_lines = BadLines::skip;
  EXPECT_EQ(texts(config), (std::vector<std::string>{"a", "b"}));
  TextSource source(config);
  for (Document document; source.next(document);) {
  }
  EXPECT_EQ(source.bad_lines().count, 9u);
  ASSERT_EQ(source.bad_lines().first.size(), Places::kMost);
  EXPECT_EQ(source.bad_lines().first[1], (folder / "x.jsonl").native() + ":4 is not JSON");
  EXPECT_EQ(source.skipped() + source.replaced(), 0u);
}

TEST(TextSource, ByteOrderMarks) {
  TemporaryFolder folder;
  const std::string mark = "\xef\xbb\xbf";
  write_bytes(folder / "x.txt", mark + "one" + mark + "|\xff");
  TextSourceConfig config{.inputs = {folder / "x.txt"}, .separator = "|"};
  expect_error([&] { texts(config); }, {"x.txt", "byte 10"});
  config.invalid_utf8 = InvalidUtf8::skip;
  EXPECT_EQ(texts(config), (std::vector<std::string>{"one" + mark}))
      << "in the text it may be meant";
  TextSource source(config);
  for (Document document; source.next(document);) {
  }
  EXPECT_EQ(source.bytes_read(), source.total_bytes());
  write_bytes(folder / "x.jsonl", mark + "{\"text\": \"a\"}\n");
  EXPECT_EQ(texts({.inputs = {folder / "x.jsonl"}}), (std::vector<std::string>{"a"}));
  write_bytes(folder / "x.txt", mark);
  EXPECT_EQ(texts(config), (std::vector<std::string>{}));
  const auto read = [&](const std::string& bytes) {
    write_bytes(folder / "y.txt", bytes);
    return [&] { texts({.inputs = {folder / "y.txt"}, .invalid_utf8 = InvalidUtf8::replace}); };
  };
  expect_error(read("\xff\xfeh\0"), {"y.txt", "UTF-16", "iconv -f UTF-16 -t UTF-8"});
  expect_error(read({"\xfe\xff\0h", 4}), {"y.txt", "UTF-16"});
  expect_error(read({"\xff\xfe\0\0h\0\0\0", 8}), {"y.txt", "iconv -f UTF-32"});
}

TEST(TextSource, StandardInput) {
  TemporaryFolder folder;
  write_bytes(folder / "piped", "one\ntwo\n");
  const int saved = ::dup(STDIN_FILENO), fd = ::open((folder / "piped").c_str(), O_RDONLY);
  ASSERT_GE(fd, 0);
  ::dup2(fd, STDIN_FILENO);
  EXPECT_EQ(texts({.inputs = {"-"}, .separator = "\n"}), (std::vector<std::string>{"one", "two"}));
  if (saved >= 0) ::dup2(saved, STDIN_FILENO);
  ::close(fd);
  expect_error([] { TextSource source({.inputs = {"-", "-"}}); }, {"named twice"});
}

TEST(TextSource, MistakesAreErrors) {
  TemporaryFolder folder;
  write_bytes(folder / "x.cpp", "x");
  expect_error([&] { TextSource({.inputs = {folder.path()}}); },
               {folder.path(), ".txt", "1 other", "--extensions"});
  write_bytes(folder / "y.parquet", "PAR1");
  const std::vector<std::string> advice = {"y.parquet", "pyarrow", "> text.jsonl"};
  expect_error([&] { TextSource({.inputs = {folder.path()}}); }, advice);
  expect_error([&] { texts({.inputs = {folder / "y.parquet"}}); }, advice);
  expect_error([&] { TextSource({.inputs = {folder / "no"}}); }, {"no", "does not exist"});
  expect_error([] { TextSource({.inputs = {}}); }, {"no input"});
}

}  // namespace
}  // namespace rodimus
