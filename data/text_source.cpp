#include "data/text_source.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "data/json_line.h"
#include "data/text_file.h"
#include "data/utf8.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

bool ends_with_any(const std::string& name, const std::vector<std::string>& suffixes) {
  return std::any_of(suffixes.begin(), suffixes.end(),
                     [&](const std::string& suffix) { return name.ends_with(suffix); });
}

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : " ") + part;
  return out;
}

std::vector<std::string> list_folder(const fs::path& folder,
                                     const std::vector<std::string>& suffixes) {
  std::vector<std::string> found;
  uint64_t others = 0;
  std::string parquet;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (!it->is_regular_file(error)) continue;
    const std::string& name = it->path().native();
    if (ends_with_any(name, suffixes) || ends_with_any(without_compression(name), suffixes)) {
      found.push_back(name);
    } else {
      ++others;
      if (name.ends_with(".parquet")) parquet = name;
    }
  }
  if (error) fail("cannot list ", folder.native(), ": ", error.message());
  if (found.empty()) {
    fail("no file in ", folder.native(), " ends in ", joined(suffixes), " (", others,
         " other files); ",
         parquet.empty() ? "name the endings with --extensions" : parquet_advice(parquet));
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

// Splits a file or pipe into the texts between separators.
class TextSource::Splitter {
 public:
  Splitter(const std::string& file, std::string separator)
      : file_(file), separator_(std::move(separator)), buffer_offset_(file_.mark_bytes()) {}

  bool next(Piece& piece) {
    size_t searched = begin_;
    for (;;) {
      const size_t at = separator_.empty() ? std::string::npos : buffer_.find(separator_, searched);
      if (at != std::string::npos || ended_) {
        if (at == std::string::npos && begin_ == buffer_.size()) return false;
        piece.offset = buffer_offset_ + begin_;
        piece.number = ++pieces_;
        const size_t end = std::min(at, buffer_.size());
        piece.text.assign(buffer_, begin_, end - begin_);
        begin_ = std::min(end + separator_.size(), buffer_.size());
        return true;
      }
      // A separator may straddle the end of the buffer.
      searched = std::max(begin_, buffer_.size() - std::min(buffer_.size(), separator_.size()));
      buffer_offset_ += begin_;
      searched -= begin_;
      buffer_.erase(0, std::exchange(begin_, 0));
      fill();
    }
  }
  // Of the file on disk, compressed or not.
  uint64_t bytes_read() const {
    return file_.compressed() ? file_.compressed_read() : buffer_offset_ + begin_;
  }

 private:
  void fill() {
    constexpr size_t kReadBytes = size_t{1} << 20;
    const size_t size = buffer_.size();
    buffer_.resize(size + kReadBytes);
    const size_t got = file_.read(buffer_.data() + size, kReadBytes);
    buffer_.resize(size + got);
    ended_ = got == 0;
  }

  TextFile file_;
  std::string separator_, buffer_;
  size_t begin_ = 0;            // of the next text in buffer_
  uint64_t buffer_offset_ = 0;  // of buffer_ in the file
  uint64_t pieces_ = 0;
  bool ended_ = false;
};

TextSource::TextSource(TextSourceConfig config) : config_(std::move(config)) {
  if (config_.inputs.empty()) fail("no input: name a text file, a folder, or - for standard input");
  bool stream = false;
  for (const std::string& input : config_.inputs) {
    std::error_code error;
    const fs::file_status status = input == "-" ? fs::file_status() : fs::status(input, error);
    if (input == "-") {
      if (std::exchange(stream, true)) fail("standard input (-) is named twice");
      files_.push_back(input);
    } else if (fs::is_directory(status)) {
      for (std::string& file : list_folder(input, config_.extensions)) {
        files_.push_back(std::move(file));
      }
    } else if (fs::exists(status)) {
      files_.push_back(input);
    } else {
      fail("input ", input, " does not exist");
    }
  }
  for (const std::string& file : files_) {
    std::error_code error;
    const auto bytes = fs::file_size(file, error);
    if (!error) total_bytes_ += bytes;  // a pipe has no size
  }
  if (stream) total_bytes_ = 0;
}

TextSource::~TextSource() = default;

double TextSource::unpacked_bytes() const {
  double plain = 0, packed = 0, ratio = 0;
  for (const std::string& file : files_) {
    std::error_code error;
    const auto bytes = static_cast<double>(fs::file_size(file, error));
    if (error) continue;
    (named_as_compressed(file) ? packed : plain) += bytes;
    if (ratio > 0 || !named_as_compressed(file)) continue;
    TextFile text(file);
    std::string buffer(size_t{4} << 20, '\0');
    size_t size = 0;
    for (size_t got = 1; got > 0 && size < buffer.size(); size += got) {
      got = text.read(buffer.data() + size, buffer.size() - size);
    }
    ratio = static_cast<double>(size) /
            static_cast<double>(std::max<uint64_t>(text.compressed_read(), 1));
  }
  return plain + packed * ratio;
}

bool TextSource::is_jsonl() const {
  return config_.jsonl || without_compression(file()).ends_with(".jsonl");
}

std::string TextSource::place(const Piece& piece) const {
  return is_jsonl() ? concat(file(), ":", piece.number)
                    : concat(file(), ", document at byte ", piece.offset);
}

// The next piece of the current file, or of the next one that is not exhausted.
bool TextSource::next_raw(Piece& piece) {
  for (; current_ < files_.size(); ++current_) {
    const uint64_t before = splitter_ ? splitter_->bytes_read() : 0;
    if (!splitter_) {
      splitter_ = std::make_unique<Splitter>(file(), is_jsonl() ? "\n" : config_.separator);
    }
    const bool found = splitter_->next(piece);
    bytes_read_ += splitter_->bytes_read() - before;
    if (found) return true;
    splitter_.reset();
  }
  return false;
}

// Applies the configuration to a text that is not UTF-8: whether to keep it (repaired) or drop it.
bool TextSource::keep_invalid(const Piece& piece, const std::string& what) {
  if (config_.invalid_utf8 == InvalidUtf8::error) {
    fail(what, "; convert the file, or choose --invalid-utf8 skip (drop the document) or replace");
  }
  const bool replace = config_.invalid_utf8 == InvalidUtf8::replace;
  ++(replace ? replaced_ : skipped_);
  invalid_utf8_.add(place(piece));
  return replace;
}

// Replaces a JSON line by its text; false: the line is skipped.
bool TextSource::take_json(Piece& piece) {
  JsonText json = json_text(piece.text, config_.json_field);
  if (!json.problem.empty()) {
    if (config_.bad_lines == BadLines::error) {
      fail(place(piece), ": the line at byte ", piece.offset, " ", json.problem, "; expected {\"",
           config_.json_field, "\": \"...\"} on each line (--json-field names another field, ",
           "--bad-lines skip leaves such lines out)");
    }
    bad_lines_.add(place(piece) + " " + json.problem);
    return false;
  }
  if (json.unpaired_surrogate &&
      !keep_invalid(piece, concat(place(piece), ": unpaired surrogate (half of a \\ud83d\\ude00) ",
                                  "in the line at byte ", piece.offset))) {
    return false;
  }
  piece.text = std::move(json.text);
  return true;
}

bool TextSource::next(Document& document) {
  for (Piece piece; next_raw(piece);) {
    if (is_blank(piece.text)) continue;
    const size_t bad = find_invalid_utf8(piece.text);
    if (bad != std::string::npos) {
      const std::string what = concat(file(), ": invalid UTF-8 at byte ", piece.offset + bad);
      if (!keep_invalid(piece, what)) continue;
      piece.text = replace_invalid_utf8(piece.text);
    }
    if (is_jsonl() && !take_json(piece)) continue;
    if (is_blank(piece.text)) continue;
    document.text = std::move(piece.text);
    document.index = index_++;
    return true;
  }
  return false;
}

}  // namespace rodimus
