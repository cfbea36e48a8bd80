// Documents out of files: plain text, JSONL, both compressed or not, folders of them, or standard
// input. Documents come in a fixed order (arguments in order, folders sorted by path), one at a
// time. Memory: the largest document, not the largest file, when a separator is given.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace rodimus {

// Stop, drop the document, or put U+FFFD. In JSON an escape of half a UTF-16 pair counts too.
enum class InvalidUtf8 { error, skip, replace };
// JSON lines without a text: stop, or leave them out.
enum class BadLines { error, skip };

struct TextSourceConfig {
  std::vector<std::string> inputs;  // files, folders (searched recursively), or "-": standard input
  // Files of a folder whose name ends in one of these, or in one and .gz, .zst, .xz or .bz2; a file
  // named as an input is always read.
  std::vector<std::string> extensions = {".txt", ".md", ".rst", ".jsonl"};
  // Files that end in .jsonl (.jsonl.gz, ...) hold one JSON object a line, whose string
  // `json_field` is a document.
  bool jsonl = false;  // so do all others, standard input too
  std::string json_field = "text";
  // Text files are cut into documents at each occurrence; empty: a file is one document.
  std::string separator = {};
  InvalidUtf8 invalid_utf8 = InvalidUtf8::error;
  BadLines bad_lines = BadLines::error;
};

// How often something happened, and where first.
struct Places {
  uint64_t count = 0;
  std::vector<std::string> first = {};  // "file:line", at most kMost of them
  static constexpr size_t kMost = 5;
  void add(std::string place) {
    if (count++ < kMost) first.push_back(std::move(place));
  }
};

struct Document {
  std::string text;  // valid UTF-8, not empty
  uint64_t index;    // 0, 1, 2, ... among the documents of the source
};

class TextSource {
 public:
  // Lists the files. Throws Error when an input is missing or a folder has no matching file. What
  // they hold shows when they are read.
  explicit TextSource(TextSourceConfig config);
  ~TextSource();

  // False at the end. Empty documents are passed over. Throws Error, naming file and byte, on
  // invalid UTF-8 or JSON (unless the configuration says otherwise) and on damaged files.
  bool next(Document& document);

  uint64_t files() const { return files_.size(); }
  // Of all files, compressed as they are; 0 with standard input.
  uint64_t total_bytes() const { return total_bytes_; }
  uint64_t bytes_read() const { return bytes_read_; }
  // Bytes of all files when unpacked, about: as if all compressed ones were like the beginning of
  // the first.
  double unpacked_bytes() const;
  uint64_t skipped() const { return skipped_; }    // documents dropped for invalid UTF-8
  uint64_t replaced() const { return replaced_; }  // documents that were repaired
  const Places& invalid_utf8() const { return invalid_utf8_; }  // of both
  const Places& bad_lines() const { return bad_lines_; }

 private:
  class Splitter;
  struct Piece {
    std::string text;
    uint64_t offset = 0;  // in the (unpacked) file
    uint64_t number = 0;  // 1, 2, ... in the file: of the line, in JSONL
  };
  bool next_raw(Piece& piece);
  bool keep_invalid(const Piece& piece, const std::string& what);
  bool take_json(Piece& piece);
  bool is_jsonl() const;
  std::string place(const Piece& piece) const;
  const std::string& file() const { return files_[current_]; }

  TextSourceConfig config_;
  std::vector<std::string> files_;
  size_t current_ = 0;
  std::unique_ptr<Splitter> splitter_;  // of files_[current_]; null: not open yet
  uint64_t total_bytes_ = 0, bytes_read_ = 0, skipped_ = 0, replaced_ = 0, index_ = 0;
  Places invalid_utf8_, bad_lines_;
};

}  // namespace rodimus
