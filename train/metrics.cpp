#include "train/metrics.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "dist/communicator.h"

namespace rodimus {
namespace {

using Json = nlohmann::ordered_json;

// The complete lines of steps up to `last`, verbatim.
std::string lines_until(const std::filesystem::path& file, int64_t last, int64_t evaluated) {
  if (!std::filesystem::exists(file)) return "";
  std::ifstream in(file, std::ios::binary);
  if (!in) fail("cannot read ", file.native(), ", whose lines the resumed run continues");
  std::string kept, line;
  while (std::getline(in, line)) {
    if (in.eof()) break;  // no newline: truncated by a crash
    const nlohmann::json json = try_parse_json(line);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    const bool eval = json.value("kind", "") == "eval";
    if (json["step"].get<int64_t>() <= (eval ? evaluated : last)) kept += line + "\n";
  }
  return kept;
}

[[noreturn]] void fail_errno(const std::filesystem::path& file) {
  fail("cannot write ", file.native(), ": ", std::strerror(errno));
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t done = ::write(fd, text.data(), text.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    text.remove_prefix(static_cast<size_t>(done));
  }
  return true;
}

int open_or_fail(const std::filesystem::path& file, int flags) {
  const int fd = ::open(file.c_str(), flags | O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) fail_errno(file);
  return fd;
}

double perplexity(double loss) { return std::exp(loss); }

}  // namespace

MetricsWriter::MetricsWriter(std::filesystem::path file, int64_t resume_step,
                             int64_t evaluated_step)
    : file_(std::move(file)) {
  if (resume_step >= 0) {
    // The old lines stay until the new ones are complete: a crash here must not lose them.
    write_whole(file_, lines_until(file_, resume_step, evaluated_step));
  }
  fd_ = open_or_fail(file_, O_APPEND | (resume_step < 0 ? O_TRUNC : 0));
}

MetricsWriter::~MetricsWriter() { ::close(fd_); }

void MetricsWriter::write(const std::string& kind, int64_t step,
                          std::initializer_list<Metric> metrics) {
  Json json = {{"kind", kind}, {"step", step}};
  for (const Metric& metric : metrics)
    std::visit([&](const auto& value) { json[metric.key] = value; }, metric.value);
  // Invalid UTF-8 (such as a path in a message) is replaced; it must not throw.
  const std::string line = to_text(json) + "\n";
  const off_t end = ::lseek(fd_, 0, SEEK_END);
  if (write_all(fd_, line)) return;
  const int error = errno;
  const bool cut = ::ftruncate(fd_, end) == 0;
  if (!std::exchange(warned_, true)) {
    fmt::print(stderr, "rodimus: warning: cannot write {}: {}; {}\n", file_.native(),
               std::strerror(error), cut ? "lines are lost" : "it ends in a partial line");
  }
}

void MetricsWriter::step(const StepReport& r) {
  write("train", r.step,
        {{"loss", r.loss},
         {"ppl", perplexity(r.loss)},
         {"lr", r.lr},
         {"grad_norm", r.grad_norm},
         {"tokens", r.tokens},
         {"skipped", r.skipped},
         {"tokens_per_s", r.tokens_per_s},
         {"mfu", r.mfu},
         {"step_s", r.step_s},
         {"data_wait_s", r.data_wait_s}});
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "?";
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
  return fmt::format("{}d{:02}h", s / 86400, s % 86400 / 3600);
}

std::string format_step(const StepReport& r) {
  const double wait = r.step_s > 0 ? 100 * r.data_wait_s / r.step_s : 0;
  std::string line = fmt::format(
      "step {}/{}  loss {:.4f}  ppl {:.4g}  lr {:.2e}  norm {:.3g}  {:.0f} tok/s  MFU {:.1f} %  "
      "data {:.1f} %  ETA {}",
      r.step, r.total, r.loss, perplexity(r.loss), r.lr, r.grad_norm, r.tokens_per_s, 100 * r.mfu,
      wait, format_duration(r.eta_s));
  if (r.skipped > 0) line += fmt::format("  skipped {}", r.skipped);
  return line;
}

ProgressLine::ProgressLine(Options options) : options_(std::move(options)) {
  if (options_.now) return;
  options_.now = [] {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(now).count();
  };
}

ProgressLine ProgressLine::on(std::FILE* out) {
  Options options;
  options.out = out;
  // Open MPI gives ranks a pseudo-terminal even if its own output goes to a file.
  options.terminal = ::isatty(::fileno(out)) == 1 && !launched_by_mpi();
  return ProgressLine(std::move(options));
}

ProgressLine::~ProgressLine() {
  if (!open_) return;
  std::fputc('\n', options_.out);
  std::fflush(options_.out);
}

void ProgressLine::clear() {
  if (std::exchange(open_, false)) std::fputs("\r\x1b[K", options_.out);
}

void ProgressLine::step(const StepReport& report) {
  // A terminal may be slow or remote, and ten updates a second are enough for the eye.
  const double interval = options_.terminal ? 0.1 : options_.interval_s;
  const double now = options_.now();
  const bool last = report.step == report.total;
  if (any_ && !last && now - shown_ < interval) return;
  clear();
  std::fputs(format_step(report).c_str(), options_.out);
  open_ = options_.terminal && !last;
  if (!open_) std::fputc('\n', options_.out);
  std::fflush(options_.out);
  shown_ = now;
  any_ = true;
}

void ProgressLine::note(const std::string& line) {
  clear();
  std::fputs((line + "\n").c_str(), options_.out);
  std::fflush(options_.out);
}

}  // namespace rodimus
