// Everything that a run reports: metrics.jsonl, TensorBoard, and the console.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "train/inference/evaluate.h"
#include "train/metrics.h"
#include "train/run_state.h"
#include "train/tensorboard.h"

namespace rodimus {

class RunReport {
 public:
  // Only the leading rank reports; on other ranks all members do nothing.
  explicit RunReport(bool leads) : leads_(leads) {}

  // Opens the files in `folder`. `resumed`: the step at which the run resumes, -1 for a fresh one;
  // see MetricsWriter. Throws Error.
  void open(const std::filesystem::path& folder, int64_t resumed, int64_t evaluated_step);

  void note(const std::string& line);  // a line that stays on the console
  // `skipped`: the update was skipped; `show`: on the console as well.
  void step(const StepReport& report, bool skipped, bool show);
  void evaluation(int64_t step, const EvalResult& result);
  void left_out(const LeftOut& part);

 private:
  bool leads_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::unique_ptr<TensorBoardWriter> board_;
  ProgressLine progress_ = ProgressLine::on(stdout);
};

}  // namespace rodimus
