// What a run reports while it runs: metrics.jsonl for programs, a progress line for people.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <string>
#include <variant>

namespace rodimus {

// One optimizer step. `step` counts steps done, so the first report has step 1.
struct StepReport {
  int64_t step = 0, total = 0;
  double loss = 0;  // nats per token, mean over the global batch
  double lr = 0;
  double grad_norm = 0;  // before clipping
  double tokens_per_s = 0;
  double mfu = 0;          // 0 .. 1
  double data_wait_s = 0;  // part of step_s
  double step_s = 0;
  double eta_s = 0;
  int64_t tokens = 0;   // since the start of the run
  int64_t skipped = 0;  // non-finite steps since the start of the run
};

using MetricValue = std::variant<int64_t, double, std::string, std::nullptr_t>;  // null: unknown
struct Metric {
  std::string key;
  MetricValue value;
};

// Appends lines of JSON to a file, for one writer: rank 0. Every line holds "kind" and "step".
// Numbers read back exactly; non-finite ones become null. When a call returns, its line is in the
// file completely or, if the disk is full, not at all: then one warning goes to stderr and the run
// continues.
class MetricsWriter {
 public:
  // Continues a run after `resume_step` steps: lines of later steps, and a partial line left by a
  // crash, are removed, so that the file ends up as if the run had never stopped. -1: a fresh run,
  // the file starts empty. Write the lines of a step before saving its checkpoint, or a kill
  // between the two loses them. Throws Error when the file cannot be opened or rewritten.
  // Lines of kind "eval" are kept only up to `evaluated_step`: one whose checkpoint was not written
  // will be written again.
  MetricsWriter(std::filesystem::path file, int64_t resume_step, int64_t evaluated_step);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  void write(const std::string& kind, int64_t step, std::initializer_list<Metric> metrics);
  void step(const StepReport& report);  // kind "train"

 private:
  std::filesystem::path file_;
  int fd_;
  bool warned_ = false;
};

// "step 120/1000  loss 3.2101  ppl 24.78  lr 1.00e-03  norm 0.512  2315 tok/s  MFU 41.2 %  ..."
std::string format_step(const StepReport& report);
std::string format_duration(double seconds);  // "59s", "3m20s", "2h05m", "3d04h"

// The console. On a terminal the step line is rewritten in place; elsewhere a line is printed for
// the first and the last step, and whenever `interval_s` have passed since the last one. Notes stay
// visible.
class ProgressLine {
 public:
  struct Options {
    std::FILE* out = stdout;
    bool terminal = false;
    double interval_s = 5;
    std::function<double()> now;  // seconds, monotonic; empty: the steady clock
  };
  explicit ProgressLine(Options options);
  // With options.terminal set if `out` is a terminal.
  static ProgressLine on(std::FILE* out);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void step(const StepReport& report);
  void note(const std::string& line);

 private:
  void clear();

  Options options_;
  double shown_ = 0;
  bool any_ = false, open_ = false;  // open: the screen shows a step line without its newline
};

}  // namespace rodimus
