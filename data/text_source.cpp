#include "data/text_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <nlohmann/json.hpp>

#include "data/utf8.h"
#include "kernels/check.h"

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
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (!it->is_regular_file(error)) continue;
    if (ends_with_any(it->path().native(), suffixes)) {
      found.push_back(it->path().native());
    } else {
      ++others;
    }
  }
  if (error) fail("cannot list ", folder.native(), ": ", error.message());
  if (found.empty()) {
    fail("no file in ", folder.native(), " ends in ", joined(suffixes), " (", others,
         " other files); name the endings with --extensions");
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

// Cuts a file or pipe into the texts between separators.
class TextSource::Splitter {
 public:
  Splitter(const std::string& file, std::string separator) : separator_(std::move(separator)) {
    fd_ = file == "-" ? ::dup(STDIN_FILENO) : ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) fail("cannot open ", file, ": ", std::strerror(errno));
  }
  ~Splitter() { ::close(fd_); }
  Splitter(const Splitter&) = delete;
  Splitter& operator=(const Splitter&) = delete;

  // offset: where `text` starts in the file.
  bool next(const std::string& file, std::string& text, uint64_t& offset) {
    size_t searched = begin_;
    for (;;) {
      const size_t at = separator_.empty() ? std::string::npos : buffer_.find(separator_, searched);
      if (at != std::string::npos || ended_) {
        if (at == std::string::npos && begin_ == buffer_.size()) return false;
        offset = buffer_offset_ + begin_;
        const size_t end = std::min(at, buffer_.size());
        text.assign(buffer_, begin_, end - begin_);
        begin_ = std::min(end + separator_.size(), buffer_.size());
        return true;
      }
      // A separator may straddle what is read next.
      searched = std::max(begin_, buffer_.size() - std::min(buffer_.size(), separator_.size()));
      buffer_offset_ += begin_;
      searched -= begin_;
      buffer_.erase(0, std::exchange(begin_, 0));
      fill(file);
    }
  }
  uint64_t bytes_read() const { return buffer_offset_ + begin_; }

 private:
  void fill(const std::string& file) {
    constexpr size_t kReadBytes = size_t{1} << 20;
    const size_t size = buffer_.size();
    buffer_.resize(size + kReadBytes);
    ssize_t got = 0;
    do {
      got = ::read(fd_, buffer_.data() + size, kReadBytes);
    } while (got < 0 && errno == EINTR);
    if (got < 0) fail("cannot read ", file, ": ", std::strerror(errno));
    buffer_.resize(size + static_cast<size_t>(got));
    ended_ = got == 0;
  }

  std::string separator_, buffer_;
  size_t begin_ = 0;            // of the next text in buffer_
  uint64_t buffer_offset_ = 0;  // of buffer_ in the file
  int fd_ = -1;
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

bool TextSource::is_jsonl() const { return config_.jsonl || file().ends_with(".jsonl"); }

// The next piece of the current file, or of the first later one that has any.
bool TextSource::next_raw(std::string& text, uint64_t& offset) {
  for (; current_ < files_.size(); ++current_) {
    if (!splitter_) {
      splitter_ = std::make_unique<Splitter>(file(), is_jsonl() ? "\n" : config_.separator);
    }
    const uint64_t before = splitter_->bytes_read();
    const bool found = splitter_->next(file(), text, offset);
    bytes_read_ += splitter_->bytes_read() - before;
    if (found) return true;
    splitter_.reset();
  }
  return false;
}

std::string TextSource::json_text(const std::string& line, uint64_t offset) const {
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  const auto advice = [&](const std::string& what) {
    fail(file(), ": the line at byte ", offset, " ", what, "; expected {\"", config_.json_field,
         "\": \"...\"} on each line (--json-field names another field)");
  };
  if (json.is_discarded()) advice("is not JSON");
  if (!json.is_object()) advice("is not a JSON object");
  const auto found = json.find(config_.json_field);
  if (found == json.end()) advice("has no field '" + config_.json_field + "'");
  if (!found->is_string()) advice("has no text in field '" + config_.json_field + "'");
  return found->get<std::string>();
}

bool TextSource::next(Document& document) {
  std::string text;
  uint64_t offset = 0;
  while (next_raw(text, offset)) {
    if (is_blank(text)) continue;
    const size_t bad = find_invalid_utf8(text);
    if (bad != std::string::npos) {
      if (config_.invalid_utf8 == InvalidUtf8::error) {
        fail(file(), ": invalid UTF-8 at byte ", offset + bad,
             "; convert the file, or choose --invalid-utf8 skip (drop the document) or replace");
      }
      ++(config_.invalid_utf8 == InvalidUtf8::skip ? skipped_ : replaced_);
      if (config_.invalid_utf8 == InvalidUtf8::skip) continue;
      text = replace_invalid_utf8(text);
    }
    if (is_jsonl()) text = json_text(text, offset);
    if (is_blank(text)) continue;
    document.text = std::move(text);
    document.index = index_++;
    return true;
  }
  return false;
}

}  // namespace rodimus
