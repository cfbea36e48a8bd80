// Reads documents from files (plain text or JSONL, compressed or not), folders of files, or
// standard input. Documents come in a fixed order (arguments in order, folders sorted by path), one
// at a time. Memory: the largest document, not the largest file, when a separator is given.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace rodimus {

// Stop, drop the document, or insert U+FFFD. In JSON, an escape of half a UTF-16 pair counts as
// invalid too.
enum class InvalidUtf8 { error, skip, replace };
// JSON lines without a text: stop, or skip them.
enum class BadLines { error, skip };

struct TextSourceConfig {
  std::vector<std::string> inputs;  // files, folders (searched recursively), or "-": standard input
  // In folders, only files with these endings are read (also followed by .gz, .zst, .xz or .bz2); a
  // file that is itself an input is always read.
  std::vector<std::string> extensions = {".txt", ".md", ".rst", ".jsonl"};
  // Files that end in .jsonl (.jsonl.gz, ...) hold one JSON object per line, whose string
  // `json_field` is a document.
  bool jsonl = false;  // treat all other files, and standard input, as JSONL too
  std::string json_field = "text";
  // Text files are cut into documents at each occurrence; empty: a file is one document.
  std::string separator = {};
  InvalidUtf8 invalid_utf8 = InvalidUtf8::error;
  BadLines bad_lines = BadLines::error;
};

// How often something happened, and the first places.
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
  // Lists the files. Throws Error when an input is missing or a folder has no matching file.
  // Contents are not checked until they are read.
  explicit TextSource(TextSourceConfig config);
  ~TextSource();

  // False at the end. Empty documents are skipped. Throws Error, naming file and byte, on invalid
  // UTF-8 or JSON (unless the configuration says otherwise) and on damaged files.
  bool next(Document& document);

  uint64_t files() const { return files_.size(); }
  // Size of all files on disk; 0 with standard input.
  uint64_t total_bytes() const { return total_bytes_; }
  uint64_t bytes_read() const { return bytes_read_; }
  // Estimated size of all files when decompressed, extrapolated from the beginning of the first
  // compressed one.
  double unpacked_bytes() const;
  uint64_t skipped() const { return skipped_; }    // documents dropped for invalid UTF-8
  uint64_t replaced() const { return replaced_; }  // documents that were repaired
  const Places& invalid_utf8() const { return invalid_utf8_; }  // both skipped and replaced
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
