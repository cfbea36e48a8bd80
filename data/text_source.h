// Documents out of files: plain text, JSONL, folders of both, or standard input. Documents come in
// a fixed order (arguments in order, folders sorted by path), one at a time. Memory: the largest
// document, not the largest file, when a separator is given.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace rodimus {

enum class InvalidUtf8 { error, skip, replace };  // stop, drop the document, or put U+FFFD

struct TextSourceConfig {
  std::vector<std::string> inputs;  // files, folders (searched recursively), or "-": standard input
  // Files of a folder whose name ends in one of these; a file named as an input is always read.
  std::vector<std::string> extensions = {".txt", ".md", ".rst", ".jsonl"};
  // Files that end in .jsonl hold one JSON object a line, whose string `json_field` is a document.
  bool jsonl = false;  // so do all others, standard input too
  std::string json_field = "text";
  // Text files are cut into documents at each occurrence; empty: a file is one document.
  std::string separator = {};
  InvalidUtf8 invalid_utf8 = InvalidUtf8::error;
};

struct Document {
  std::string text;  // valid UTF-8, not empty
  uint64_t index;    // 0, 1, 2, ... among the documents of the source
};

class TextSource {
 public:
  // Lists the files. Throws Error when an input is missing or a folder has no matching file.
  explicit TextSource(TextSourceConfig config);
  ~TextSource();

  // False at the end. Empty documents are passed over. Throws Error, naming file and byte, on
  // invalid UTF-8 or JSON.
  bool next(Document& document);

  uint64_t files() const { return files_.size(); }
  uint64_t total_bytes() const { return total_bytes_; }  // of all files; 0 with standard input
  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t skipped() const { return skipped_; }    // documents dropped for invalid UTF-8
  uint64_t replaced() const { return replaced_; }  // documents that were repaired

 private:
  class Splitter;
  bool next_raw(std::string& text, uint64_t& offset);
  std::string json_text(const std::string& line, uint64_t offset) const;
  bool is_jsonl() const;
  const std::string& file() const { return files_[current_]; }

  TextSourceConfig config_;
  std::vector<std::string> files_;
  size_t current_ = 0;
  std::unique_ptr<Splitter> splitter_;  // of files_[current_]; null: not open yet
  uint64_t total_bytes_ = 0, bytes_read_ = 0, skipped_ = 0, replaced_ = 0, index_ = 0;
};

}  // namespace rodimus
