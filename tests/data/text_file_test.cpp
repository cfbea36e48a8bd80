// Compressed text: files made with libarchive's writers, and every way in which they may be
// damaged.
#include "data/text_file.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <unistd.h>

#include "data/text_source.h"
#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

using testing::expect_error;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

// File name endings and libarchive's names.
const std::vector<std::pair<std::string, std::string>> kKinds = {
    {".gz", "gzip"}, {".zst", "zstd"}, {".xz", "xz"}, {".bz2", "bzip2"}};

std::string compressed(const std::string& text, const std::string& filter) {
  std::string out(text.size() + (1 << 20), '\0');
  size_t used = 0;
  archive* a = archive_write_new();
  archive_entry* entry = archive_entry_new();
  archive_entry_set_filetype(entry, AE_IFREG);
  EXPECT_EQ(archive_write_set_format_raw(a), ARCHIVE_OK);
  EXPECT_EQ(archive_write_add_filter_by_name(a, filter.c_str()), ARCHIVE_OK);
  EXPECT_EQ(archive_write_set_bytes_in_last_block(a, 1), ARCHIVE_OK);  // no padding
  EXPECT_EQ(archive_write_open_memory(a, out.data(), out.size(), &used), ARCHIVE_OK);
  EXPECT_EQ(archive_write_header(a, entry), ARCHIVE_OK);
  EXPECT_EQ(archive_write_data(a, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  EXPECT_EQ(archive_write_close(a), ARCHIVE_OK);
  archive_entry_free(entry);
  archive_write_free(a);
  out.resize(used);
  return out;
}

std::string all_of(const std::string& name) {
  TextFile file(name);
  std::string out, part(1000, '\0');
  for (size_t got; (got = file.read(part.data(), part.size())) > 0;) out.append(part, 0, got);
  EXPECT_EQ(file.read(part.data(), part.size()), 0u) << "stays at the end";
  return out;
}

// Compresses to some hundred KB, so that several buffers are read.
std::string long_text() {
  std::string text;
  uint64_t state = 3;
  for (int i = 0; i < 20000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    text += std::to_string(state >> 40) + (i % 7 == 0 ? "\n" : " ");
  }
  return text;
}

TEST(TextFile, AnyCompressionByContent) {
  TemporaryFolder folder;
  const std::string text = long_text();
  for (const auto& [ending, filter] : kKinds) {
    for (const std::string& part : {std::string("short"), text, std::string()}) {
      for (const std::string& name : {"x" + ending, std::string("without_ending")}) {
        const std::string bytes = compressed(part, filter);
        write_bytes(folder / name, bytes);
        EXPECT_EQ(all_of(folder / name), part) << filter;
        // `cat`, pigz and bgzip make multi-part files.
        write_bytes(folder / name, bytes + compressed("second", filter));
        EXPECT_EQ(all_of(folder / name), part + "second") << filter;
      }
    }
    write_bytes(folder / ("m" + ending), compressed("\xef\xbb\xbf marked", filter));
    EXPECT_EQ(all_of(folder / ("m" + ending)), " marked");
    write_bytes(folder / ("u" + ending), compressed("\xff\xfe", filter));
    expect_error([&] { TextFile(folder / ("u" + ending)); }, {"UTF-16"});
  }
  write_bytes(folder / "plain", "BZh is no bzip2");
  EXPECT_EQ(all_of(folder / "plain"), "BZh is no bzip2");
}

TEST(TextFile, DamageIsNeverAShortText) {
  TemporaryFolder folder;
  const std::string text = long_text();
  for (const auto& [ending, filter] : kKinds) {
    const std::string name = folder / ("x" + ending), bytes = compressed(text, filter);
    const auto read = [&](const std::string& content) {
      write_bytes(name, content);
      return [&] { all_of(name); };
    };
    const std::vector<size_t> cuts = {
        0, 1, 5, 11, 30, bytes.size() / 2, bytes.size() - 5, bytes.size() - 1};
    for (const size_t size : cuts) {
      SCOPED_TRACE(filter + " of " + std::to_string(size) + " bytes");
      expect_error(read(bytes.substr(0, size)), {name});
    }
    SCOPED_TRACE(filter);
    expect_error(read(bytes + "garbage"), {name});
    expect_error(read("no compressed text"), {name, ending, "something else"});
    std::string flipped = bytes;
    flipped[bytes.size() / 2] ^= 0x10;
    // libarchive writes zstd without a checksum; other programs include one.
    if (filter != "zstd") expect_error(read(flipped), {name, "cannot decompress"});
    // The second part's header is damaged.
    std::string two = bytes + compressed("second", filter);
    two[bytes.size()] ^= 1;
    expect_error(read(two), {name});
  }
  write_bytes(folder / "x.gz", compressed("x", "xz"));
  expect_error([&] { TextFile(folder / "x.gz"); }, {"x.gz", "content is xz"});
}

TEST(TextFile, ArchivesOfFilesAreRefused) {
  TemporaryFolder folder;
  std::string tar(512, '\0');
  tar.replace(257, 5, "ustar");
  write_bytes(folder / "x.tar.gz", compressed(tar, "gzip"));
  expect_error([&] { TextFile(folder / "x.tar.gz"); }, {"x.tar.gz", "tar", "unpack"});
  write_bytes(folder / "x.zip", "PK\3\4");
  expect_error([&] { TextFile(folder / "x.zip"); }, {"x.zip", "unpack"});
}

TEST(TextSource, CompressedFilesOfFolders) {
  TemporaryFolder folder;
  write_bytes(folder / "a.jsonl.gz",
              compressed("{\"text\": \"one\"}\n{\"text\": \"two\"}\n", "gzip"));
  write_bytes(folder / "b/c.txt.zst", compressed("three", "zstd"));
  write_bytes(folder / "d.md.xz", compressed("four\n", "xz"));
  write_bytes(folder / "e.txt.bz2", compressed("five|six", "bzip2"));
  write_bytes(folder / "f.cpp.gz", compressed("int x;", "gzip"));
  TextSource source({.inputs = {folder.path()}, .separator = "|"});
  std::vector<std::string> texts;
  for (Document document; source.next(document);) texts.push_back(document.text);
  EXPECT_EQ(texts, (std::vector<std::string>{"one", "two", "three", "four\n", "five", "six"}));
  EXPECT_EQ(source.bytes_read(), source.total_bytes()) << "what progress counts";
}

TEST(TextSource, KnowsTheSizeOfTheTextAboutBeforeItIsRead) {
  TemporaryFolder folder;
  const std::string text = long_text();
  write_bytes(folder / "a.txt", text);
  write_bytes(folder / "b.txt.gz", compressed(text, "gzip"));
  write_bytes(folder / "c.txt.gz", compressed(text, "gzip"));
  const TextSource source({.inputs = {folder.path()}});
  const auto size = static_cast<double>(text.size());
  EXPECT_NEAR(source.unpacked_bytes(), 3 * size, 1e-6 * size);
  EXPECT_LT(static_cast<double>(source.total_bytes()), 2.2 * size);
}

TEST(TextSource, CompressedStandardInput) {
  TemporaryFolder folder;
  write_bytes(folder / "piped", compressed("one\ntwo\n", "gzip"));
  const int saved = ::dup(STDIN_FILENO), fd = ::open((folder / "piped").c_str(), O_RDONLY);
  ASSERT_GE(fd, 0);
  ::dup2(fd, STDIN_FILENO);
  EXPECT_EQ(all_of("-"), "one\ntwo\n");
  if (saved >= 0) ::dup2(saved, STDIN_FILENO);
  ::close(fd);
}

}  // namespace
}  // namespace rodimus
