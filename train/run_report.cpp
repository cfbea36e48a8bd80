#include "train/run_report.h"

#include <array>
#include <span>

#include "base/error.h"

namespace rodimus {

void RunReport::open(const std::filesystem::path& folder, int64_t resumed, int64_t evaluated_step) {
  if (!leads_) return;
  metrics_ = std::make_unique<MetricsWriter>(folder / "metrics.jsonl", resumed, evaluated_step);
  board_ = std::make_unique<TensorBoardWriter>(folder / "tensorboard", resumed);
}

void RunReport::note(const std::string& line) {
  if (leads_) progress_.note(line);
}

void RunReport::step(const StepReport& report, bool skipped, bool show) {
  if (!leads_) return;
  metrics_->step(report);
  const std::array<TensorBoardWriter::Scalar, 4> scalars{
      {{"train/loss", static_cast<float>(report.loss)},
       {"train/lr", static_cast<float>(report.lr)},
       {"train/grad_norm", static_cast<float>(report.grad_norm)},
       {"train/tokens_per_s", static_cast<float>(report.tokens_per_s)}}};
  board_->write(report.step, scalars);
  if (show) progress_.step(report);
  if (skipped) note(concat("step ", report.step, ": loss or gradient not finite, update skipped"));
}

void RunReport::evaluation(int64_t step, const EvalResult& result) {
  if (!leads_) return;
  const auto from = [](CountFrom source) {
    return name_of(source) ? MetricValue(std::string(name_of(source))) : MetricValue(nullptr);
  };
  metrics_->write("eval", step,
                  {{"loss", result.loss()},
                   {"perplexity", result.perplexity()},
                   {"bits_per_byte", result.bits_per_byte()},
                   {"bytes_from", from(result.bytes_from)},
                   {"perplexity_per_word", result.perplexity_per_word()},
                   {"words_from", from(result.words_from)},
                   {"tokens", result.tokens},
                   {"predictable_tokens", result.predictable}});
  const TensorBoardWriter::Scalar scalar{"val/loss", static_cast<float>(result.loss())};
  board_->write(step, std::span(&scalar, 1));
  note(concat("step ", step, ": validation loss ", result.loss(), ", perplexity ",
              result.perplexity(), ", ", describe_text_figures(result), ", ",
              describe_scored(result)));
}

void RunReport::left_out(const LeftOut& part) {
  if (!leads_) return;
  note(concat("the data of ", part.steps, " steps is skipped: samples ", part.from, " to ",
              part.to - 1));
  metrics_->write("left_out", part.step + 1,
                  {{"steps", part.steps},
                   {"from_sample", static_cast<int64_t>(part.from)},
                   {"to_sample", static_cast<int64_t>(part.to)}});
}

}  // namespace rodimus
