#include "data/text_file.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace rodimus {
namespace {

using namespace std::string_view_literals;

struct Compression {
  const char* name;
  std::string_view suffix, magic;  // of the file name, of the content
};
// The magic of bzip2 is followed by a digit.
constexpr std::array kCompressions = {
    Compression{"gzip", ".gz", "\x1f\x8b"sv}, Compression{"zstd", ".zst", "\x28\xb5\x2f\xfd"sv},
    Compression{"xz", ".xz", "\xfd\x37\x7a\x58\x5a\x00"sv}, Compression{"bzip2", ".bz2", "BZh"sv}};

const Compression* compression_of_name(std::string_view name) {
  for (const Compression& c : kCompressions) {
    if (name.ends_with(c.suffix)) return &c;
  }
  return nullptr;
}

const Compression* compression_of_content(std::string_view head) {
  for (const Compression& c : kCompressions) {
    if (!head.starts_with(c.magic)) continue;
    // A text could begin with "BZh": in bzip2 a digit and the digits of pi (or of its root) follow.
    const std::string_view block = head.substr(std::min<size_t>(head.size(), 4));
    if (c.magic == "BZh"sv && !block.starts_with("1AY&SY"sv) &&
        !block.starts_with("\x17\x72\x45\x38\x50\x90"sv)) {
      continue;
    }
    return &c;
  }
  return nullptr;
}

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr size_t kHeadBytes = 512;  // enough to recognise a tar archive

// Rejects other formats whatever --invalid-utf8 says, because every byte would be wrong.
void refuse_other_contents(const std::string& file, std::string_view head) {
  const bool utf32 = head.starts_with("\xff\xfe\0\0"sv) || head.starts_with("\0\0\xfe\xff"sv);
  if (utf32 || head.starts_with("\xff\xfe"sv) || head.starts_with("\xfe\xff"sv)) {
    const char* name = utf32 ? "UTF-32" : "UTF-16";
    fail(file, ": the text is ", name, ", expected UTF-8; convert it: iconv -f ", name,
         " -t UTF-8 < FILE > FILE.utf8.txt");
  }
  if (head.starts_with("PAR1"sv)) fail(file, " is a Parquet file; ", parquet_advice(file));
  if (head.starts_with("PK\3\4"sv) || (head.size() > 262 && head.substr(257, 5) == "ustar"sv)) {
    fail(file, " is an archive of files (", head.starts_with("PK"sv) ? "zip" : "tar",
         "); unpack it and name the folder");
  }
}

}  // namespace

struct TextFile::Stream {
  explicit Stream(std::string name) : file(std::move(name)) {
    fd = file == "-" ? ::dup(STDIN_FILENO) : ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail("cannot open ", file, ": ", std::strerror(errno));
  }
  ~Stream() {
    if (inflating) inflateEnd(&gzip);
    if (archive != nullptr) archive_read_free(archive);
    ::close(fd);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Reads the file itself. -1: failed, see errno.
  ssize_t read_raw(char* to, size_t size) {
    if (raw_at < raw_head.size()) {
      const size_t count = std::min(size, raw_head.size() - raw_at);
      std::memcpy(to, raw_head.data() + raw_at, count);
      raw_at += count;
      return static_cast<ssize_t>(count);
    }
    ssize_t got = 0;
    do {
      got = ::read(fd, to, size);
    } while (got < 0 && errno == EINTR);
    return got;
  }

  // Reads the decompressed text.
  size_t read_text(char* to, size_t size) {
    if (inflating) return read_gzip(to, size);
    if (archive == nullptr) {
      const ssize_t got = read_raw(to, size);
      if (got < 0) fail("cannot read ", file, ": ", std::strerror(errno));
      return static_cast<size_t>(got);
    }
    if (ended) return 0;
    const la_ssize_t got = archive_read_data(archive, to, size);
    if (got < 0) fail_to_decompress();
    if (got == 0) finish();
    return static_cast<size_t>(got);
  }

  static la_ssize_t feed(struct archive* a, void* self, const void** bytes) {
    auto& stream = *static_cast<Stream*>(self);
    *bytes = stream.input.data();
    const ssize_t got = stream.read_raw(stream.input.data(), stream.input.size());
    if (got < 0) archive_set_error(a, errno, "%s", std::strerror(errno));
    if (got > 0) stream.fed += static_cast<uint64_t>(got);
    return got;
  }

  // Uses zlib because libarchive (3.6) does not verify gzip checksums.
  size_t read_gzip(char* to, size_t size) {
    gzip.next_out = reinterpret_cast<Bytef*>(to);
    gzip.avail_out = static_cast<uInt>(std::min<size_t>(size, UINT_MAX));
    const uInt wanted = gzip.avail_out;
    while (gzip.avail_out == wanted && !ended) {
      if (gzip.avail_in == 0) {
        const ssize_t got = read_raw(input.data(), input.size());
        if (got < 0) fail("cannot read ", file, ": ", std::strerror(errno));
        if (got == 0 && member_open) fail_to_decompress("it ends in the middle");
        ended = got == 0;
        fed += static_cast<uint64_t>(got);
        gzip.next_in = reinterpret_cast<Bytef*>(input.data());
        gzip.avail_in = static_cast<uInt>(got);
        continue;
      }
      // Files written by pigz, bgzip or `cat` have several members.
      if (!std::exchange(member_open, true)) inflateReset(&gzip);
      const int result = inflate(&gzip, Z_NO_FLUSH);
      if (result == Z_STREAM_END) {
        member_open = false;
      } else if (result != Z_OK) {
        fail_to_decompress(gzip.msg != nullptr ? gzip.msg : "unknown error");
      }
    }
    return wanted - gzip.avail_out;
  }

  void open_compressed(const Compression& compression) {
    kind = &compression;
    input.resize(size_t{1} << 18);
    if (kind->name == "gzip"sv) {
      inflating = inflateInit2(&gzip, 16 + MAX_WBITS) == Z_OK;
      CHECK(inflating, "zlib: ", gzip.msg != nullptr ? gzip.msg : "out of memory");
      return;
    }
    archive = archive_read_new();
    CHECK(archive != nullptr, "libarchive: out of memory");
    archive_read_support_format_raw(archive);
    archive_read_support_format_empty(archive);
    archive_read_support_filter_zstd(archive);
    archive_read_support_filter_xz(archive);
    archive_read_support_filter_bzip2(archive);
    if (archive_read_open(archive, this, nullptr, feed, nullptr) != ARCHIVE_OK)
      fail_to_decompress();
    // libarchive passes a truncated header on as if it were text.
    if (archive_filter_code(archive, 0) == ARCHIVE_FILTER_NONE) {
      fail(file, ": the ", kind->name, " header is damaged or cut short; fetch the file again");
    }
    archive_entry* entry = nullptr;
    const int result = archive_read_next_header(archive, &entry);
    if (result == ARCHIVE_EOF) {
      finish();
    } else if (result != ARCHIVE_OK) {
      fail_to_decompress();
    }
  }

  // libarchive ignores unknown bytes after the data, so a damaged header in the middle of a
  // multi-part file would hide the rest.
  void finish() {
    ended = true;
    const uint64_t used = used_up();
    char byte = 0;
    if (used != fed || read_raw(&byte, 1) != 0) {
      fail(file, ": the compressed data ends at byte ", used,
           ", but the file continues: it is damaged; fetch it again");
    }
  }

  uint64_t used_up() const {
    return inflating ? fed - gzip.avail_in
                     : static_cast<uint64_t>(archive_filter_bytes(archive, -1));
  }

  [[noreturn]] void fail_to_decompress(std::string_view why) const {
    fail(file, ": cannot decompress (", kind->name, "): ", why,
         "; the file is damaged or cut short: fetch it again");
  }
  [[noreturn]] void fail_to_decompress() const {
    const char* why = archive_error_string(archive);
    fail_to_decompress(why != nullptr ? why : "unknown error");
  }

  std::string file;
  int fd = -1;
  std::string raw_head;  // read to detect the format; unused from raw_at on
  size_t raw_at = 0;
  std::string head;  // the same for the text
  size_t head_at = 0, mark_bytes = 0;
  const Compression* kind = nullptr;
  z_stream gzip = {};
  bool inflating = false, member_open = true;
  struct archive* archive = nullptr;  // for all other compressions
  std::vector<char> input;
  uint64_t fed = 0;
  bool ended = false;
};

TextFile::TextFile(const std::string& name) : stream_(std::make_unique<Stream>(name)) {
  Stream& s = *stream_;
  const auto beginning = [&s] {
    std::string head(kHeadBytes, '\0');
    size_t size = 0;
    for (size_t got = 1; got > 0 && size < head.size(); size += got) {
      got = s.read_text(head.data() + size, head.size() - size);
    }
    head.resize(size);
    return head;
  };
  s.raw_head = beginning();
  const Compression* promised = compression_of_name(name);
  const Compression* found = compression_of_content(s.raw_head);
  if (promised != nullptr && found != promised) {
    fail(name, " ends in ", promised->suffix, ", but its content is ",
         s.raw_head.empty() ? "empty"
         : found != nullptr ? found->name
                            : "something else",
         ": it is damaged, or should have another name");
  }
  if (found != nullptr) {
    s.open_compressed(*found);
    s.head = beginning();
  } else {
    s.raw_at = s.raw_head.size();
    s.head = s.raw_head;
  }
  refuse_other_contents(name, s.head);
  if (s.head.starts_with(kByteOrderMark)) s.head_at = s.mark_bytes = kByteOrderMark.size();
}

TextFile::~TextFile() = default;

size_t TextFile::read(char* to, size_t size) {
  Stream& s = *stream_;
  if (s.head_at == s.head.size()) return s.read_text(to, size);
  const size_t count = std::min(size, s.head.size() - s.head_at);
  std::memcpy(to, s.head.data() + s.head_at, count);
  s.head_at += count;
  return count;
}

bool TextFile::compressed() const { return stream_->kind != nullptr; }
size_t TextFile::mark_bytes() const { return stream_->mark_bytes; }
uint64_t TextFile::compressed_read() const { return compressed() ? stream_->used_up() : 0; }

std::string without_compression(const std::string& name) {
  const Compression* c = compression_of_name(name);
  return c == nullptr ? name : name.substr(0, name.size() - c->suffix.size());
}

bool named_as_compressed(const std::string& name) { return compression_of_name(name) != nullptr; }

std::string parquet_advice(const std::string& file) {
  return concat(
      "convert it to JSON lines: python3 -c 'import json, sys, pyarrow.parquet as p; "
      "[print(json.dumps({\"text\": t})) for b in p.ParquetFile(sys.argv[1]).iter_batches("
      "columns=[\"text\"]) for t in b[\"text\"].to_pylist()]' ",
      file, " > text.jsonl");
}

}  // namespace rodimus
