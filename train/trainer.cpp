#include "train/trainer.h"

#include <array>
#include <chrono>
#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/progress.h"
#include "kernels/reduce.h"
#include "train/config_warnings.h"
#include "train/evaluate.h"
#include "train/load_model.h"
#include "train/metrics.h"
#include "train/peak.h"
#include "train/placement.h"
#include "train/resume.h"
#include "train/run_data.h"
#include "train/run_lock.h"
#include "train/schedule.h"
#include "train/signals.h"
#include "train/step.h"
#include "train/tensorboard.h"

namespace rodimus {
namespace {

using Clock = std::chrono::steady_clock;

class Trainer {
 public:
  Trainer(Config config, const TrainOptions& options, const Place& place);
  void run();

 private:
  bool leads() const { return communicator_.rank() == 0; }
  void note(const std::string& line) {
    if (leads()) progress_.note(line);
  }
  void prepare_output(const TrainOptions& options);
  void write_config(const std::filesystem::path& path);
  void restore_from(const std::filesystem::path& folder, bool other_data);
  StepResult take_step();
  void report(const StepResult& result, double step_s);
  bool evaluation_due() const;
  bool evaluate();  // false: a stop signal came
  // `last`: nothing comes after it, so a failure is an error; the same on every rank.
  void save(bool last);
  void check_identical(const std::string& when);

  Config config_;
  Communicator& communicator_;
  Context ctx_;
  RunData data_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<Stepper> stepper_;
  std::unique_ptr<RunLock> lock_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::unique_ptr<TensorBoardWriter> board_;
  ProgressLine progress_ = ProgressLine::on(stdout);
  double peak_gflops_ = 0;  // of all ranks together

  // Saved in checkpoints.
  int64_t step_ = 0;
  int64_t skipped_ = 0, skipped_in_a_row_ = 0;
  int64_t evaluated_step_ = -1;

  int64_t saved_step_ = -1;
  double mean_step_s_ = 0;
};

Trainer::Trainer(Config config, const TrainOptions& options, const Place& place)
    : config_(std::move(config)), communicator_(*place.communicator), ctx_{place.exec} {
  together(communicator_, [&] {
    resolve_for_ranks(config_, communicator_.world_size());
    ctx_.compute = resolve_compute(config_.run.compute, ctx_.device());
    data_ = open_data(config_);
    if (!data_.train)
      fail("data.train is empty: name the shards to train on, made by `rodimus tokenize`");
    model_ = std::make_unique<Model>(config_.model, ctx_.exec, ctx_.compute, /*grads=*/true);
    optimizer_ = std::make_unique<AdamW>(ctx_.exec, model_->parameters(), config_.optimizer);
    loader_ = std::make_unique<Loader>(
        *data_.train, LoaderConfig{.global_batch = config_.run.global_batch,
                                   .micro_batch = config_.run.micro_batch,
                                   .rank = communicator_.rank(),
                                   .world_size = communicator_.world_size(),
                                   .seed = config_.run.seed,
                                   .shuffle = config_.data.shuffle,
                                   .document_starts = config_.data.reset_documents});
    stepper_ = std::make_unique<Stepper>(
        Stepper{.ctx = ctx_,
                .model = *model_,
                .optimizer = *optimizer_,
                .communicator = communicator_,
                .tokens = config_.run.global_batch * config_.data.seq_len,
                .micro_batches = loader_->micro_batches_per_step(),
                .recompute = config_.run.recompute,
                .next = [this] { return to_tensors(ctx_.exec, loader_->next()); }});
  });
  for (const std::string& line : config_warnings(config_, data_.train.get(), data_.val.get()))
    note("warning: " + line);
  prepare_output(options);

  const double peak = config_.run.peak_gflops > 0 ? config_.run.peak_gflops
                                                  : measure_gemm_gflops(ctx_.exec, ctx_.compute);
  std::array<double, 1> sum{peak};
  communicator_.all_reduce_sum(std::span<double>(sum));
  peak_gflops_ = sum[0];
  check_identical("at the start");
  note(concat(config_.model.plus() ? "Rodimus+" : "Rodimus", ", ", model_->parameters().count(),
              " parameters, ", communicator_.world_size(), " ranks, each with ",
              describe_device(config_.run.device, ctx_.exec), ", ",
              describe_compute(config_.run.compute, ctx_.device()), ", ", data_.train->windows(),
              " windows of ", config_.data.seq_len, " tokens, GEMM peak ",
              static_cast<int64_t>(peak_gflops_), " GFLOP/s"));
}

// Only rank 0 looks for checkpoints and writes to the folder; all ranks learn what it found.
void Trainer::prepare_output(const TrainOptions& options) {
  std::string start;
  together(communicator_, [&] {
    if (!leads()) return;
    const std::filesystem::path folder = config_.run.output;
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) fail("run.output = \"", folder.string(), "\": cannot be created: ", error.message());
    lock_ = std::make_unique<RunLock>(folder);
    const auto found =
        find_start(config_, options.resume, [&](const std::string& line) { progress_.note(line); });
    start = found ? found->string() : "";
  });
  start = broadcast_text(communicator_, start, 0);
  together(communicator_, [&] {
    if (start.empty()) {
      initialize(ctx_.exec, model_->parameters(), config_.run.seed);
    } else {
      restore_from(start, options.other_data);
    }
  });
  together(communicator_, [&] {
    if (!leads()) return;
    const std::filesystem::path folder = config_.run.output;
    const int64_t resumed = start.empty() ? -1 : step_;
    metrics_ = std::make_unique<MetricsWriter>(folder / "metrics.jsonl", resumed, evaluated_step_);
    board_ = std::make_unique<TensorBoardWriter>(folder / "tensorboard", resumed);
    write_config(folder / "config.toml");
  });
  if (!start.empty()) note(concat("resumed from ", start, ", sample ", loader_->position()));
}

// Replaced as a whole, so that a kill leaves the old or the new text.
void Trainer::write_config(const std::filesystem::path& path) {
  const std::filesystem::path temporary = path.string() + ".tmp";
  std::ofstream file(temporary);
  file << to_toml(config_);
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(temporary, path, error);
  if (!file || error) fail(path.string(), " cannot be written; is the disk full?");
}

void Trainer::restore_from(const std::filesystem::path& folder, bool other_data) {
  const CheckpointReader checkpoint(folder);
  require_same_run(config_, checkpoint);
  require_run_tokenizer(data_, checkpoint.state().tokenizer_hash);
  for (const std::string& line : changed_keys(config_, checkpoint)) note(line);
  restore(ctx_.exec, checkpoint, model_->parameters(), *optimizer_);
  const TrainState& state = checkpoint.state();
  step_ = saved_step_ = state.step;
  loader_->seek(state.sample);
  std::string data;
  try {
    const auto json = nlohmann::json::parse(state.state_json);
    optimizer_->set_updates(json.at("updates").get<int64_t>());
    skipped_ = json.at("skipped").get<int64_t>();
    skipped_in_a_row_ = json.at("skipped_in_a_row").get<int64_t>();
    evaluated_step_ = json.at("evaluated_step").get<int64_t>();
    data = json.at("data").get<std::string>();
  } catch (const nlohmann::json::exception& error) {
    fail(folder.string(), ": its state_json is not that of a training run: ", error.what());
  }
  if (data == data_fingerprint(*data_.train)) return;
  if (!other_data) {
    fail(
        "data.train is not what the checkpoint was trained on: the order of samples would change. "
        "Name the same ",
        "shards in the same order, or say --allow-other-data to go on with these");
  }
  note("data.train has changed: from here on the order of samples is another one");
}

StepResult Trainer::take_step() {
  const StepResult result =
      stepper_->step(learning_rate(config_.optimizer, config_.run.steps, step_));
  if (result.skipped) ++skipped_;
  skipped_in_a_row_ = result.skipped ? skipped_in_a_row_ + 1 : 0;
  ++step_;
  return result;
}

void Trainer::run() {
  bool stop = false;
  // A stop may have come between a step and the evaluation that belongs to it.
  if (step_ > 0 && evaluation_due() && evaluated_step_ != step_) {
    stop = !evaluate();
    if (!stop) save(step_ >= config_.run.steps);  // so that it is not done again
  }
  if (step_ >= config_.run.steps && saved_step_ == step_ && !stop) {
    note(concat("the run is complete: ", step_, " of ", config_.run.steps, " steps"));
  }
  while (step_ < config_.run.steps && !stop) {
    const auto begin = Clock::now();
    const StepResult result = take_step();
    report(result, seconds_since(begin));
    if (skipped_in_a_row_ > config_.run.max_skipped) {
      throw SharedError(concat("the loss or its gradient was not finite for ", skipped_in_a_row_,
                               " steps in a row (step ", step_,
                               "); lower optimizer.lr, or look at the data around sample ",
                               loader_->position()));
    }
    if (config_.run.check_every > 0 && step_ % config_.run.check_every == 0) {
      check_identical(concat("after step ", step_));
    }
    stop = result.stop;
    if (!stop && evaluation_due()) stop = !evaluate();
    // In a streak of skipped steps something is wrong: the last good checkpoints must not be pruned
    // for copies of it.
    const bool save_due = config_.checkpoint.every > 0 && step_ % config_.checkpoint.every == 0 &&
                          skipped_in_a_row_ == 0;
    if (stop || save_due || step_ == config_.run.steps) save(stop || step_ == config_.run.steps);
  }
  if (stop) {
    if (saved_step_ != step_) save(/*last=*/true);
    note(concat("stopped by a signal after step ", step_,
                ", saved; the same command goes on from here"));
  }
}

void Trainer::report(const StepResult& result, double step_s) {
  const double tokens = static_cast<double>(config_.run.global_batch * config_.data.seq_len);
  // The mean forgets slowly, so that one slow step does not make the ETA jump.
  mean_step_s_ = mean_step_s_ == 0 ? step_s : 0.95 * mean_step_s_ + 0.05 * step_s;
  if (!leads()) return;
  const double flops = 3 * forward_flops_per_token(config_.model, config_.data.seq_len) * tokens;
  StepReport line{.step = step_,
                  .total = config_.run.steps,
                  .loss = result.loss,
                  .lr = learning_rate(config_.optimizer, config_.run.steps, step_ - 1),
                  .grad_norm = result.grad_norm,
                  .tokens_per_s = tokens / step_s,
                  .mfu = flops / step_s / (peak_gflops_ * 1e9),
                  .data_wait_s = result.data_wait_s,
                  .step_s = step_s,
                  .eta_s = mean_step_s_ * static_cast<double>(config_.run.steps - step_),
                  .tokens = static_cast<int64_t>(loader_->position()) * config_.data.seq_len,
                  .skipped = skipped_};
  metrics_->step(line);
  const std::array<TensorBoardWriter::Scalar, 4> scalars{
      {{"train/loss", static_cast<float>(line.loss)},
       {"train/lr", static_cast<float>(line.lr)},
       {"train/grad_norm", static_cast<float>(line.grad_norm)},
       {"train/tokens_per_s", static_cast<float>(line.tokens_per_s)}}};
  board_->write(line.step, scalars);
  if (step_ % config_.run.log_every == 0 || step_ == config_.run.steps) progress_.step(line);
  if (result.skipped)
    progress_.note(concat("step ", step_, ": loss or gradient not finite, update skipped"));
}

bool Trainer::evaluation_due() const {
  if (!data_.val) return false;
  return step_ == config_.run.steps ||
         (config_.run.eval_every > 0 && step_ % config_.run.eval_every == 0);
}

bool Trainer::evaluate() {
  const EvalOptions options{.micro_batch = config_.run.micro_batch,
                            .limit = config_.run.eval_windows,
                            .reset_documents = config_.data.reset_documents,
                            .token_bytes = data_.token_bytes};
  const auto result = evaluate_windows(*model_, ctx_, *data_.val, options, communicator_);
  if (!result) return false;
  evaluated_step_ = step_;
  if (leads()) {
    metrics_->write("eval", step_,
                    {{"loss", result->loss()},
                     {"perplexity", result->perplexity()},
                     {"bits_per_byte", result->bits_per_byte()},
                     {"tokens", result->tokens}});
    const TensorBoardWriter::Scalar scalar{"val/loss", static_cast<float>(result->loss())};
    board_->write(step_, std::span(&scalar, 1));
    progress_.note(concat(
        "step ", step_, ": validation loss ", result->loss(), ", perplexity ", result->perplexity(),
        result->bytes > 0 ? concat(", bits per byte ", result->bits_per_byte()) : ""));
  }
  return true;
}

void Trainer::save(bool last) {
  const auto begin = Clock::now();
  ParameterBuffers& buffers = model_->parameters();
  double squares = 0;
  on_device(ctx_.exec, [&](auto& exec) {
    squares =
        sum_of_squares(exec, std::as_const(buffers.values).data<float>(), buffers.values.numel());
  });
  if (!std::isfinite(squares)) {
    throw SharedError(concat("the parameters are not finite after step ", step_,
                             "; not saved. Lower optimizer.lr and go on from the last checkpoint"));
  }
  const Range owned =
      owned_range(buffers.values.numel(), communicator_.rank(), communicator_.world_size());
  const TrainState state{.step = step_,
                         .sample = loader_->position(),
                         .state_json = nlohmann::json{{"updates", optimizer_->updates()},
                                                      {"skipped", skipped_},
                                                      {"skipped_in_a_row", skipped_in_a_row_},
                                                      {"evaluated_step", evaluated_step_},
                                                      {"data", data_fingerprint(*data_.train)}}
                                           .dump(),
                         .config_toml = to_toml(config_),
                         .tokenizer_hash = tokenizer_hash(data_)};
  const auto part = [&](const Tensor& x) {
    return on_host(ctx_.exec, x.slice(owned.begin, {owned.size()}));
  };
  const Tensor values = part(buffers.values), m = part(optimizer_->m()), v = part(optimizer_->v());
  const std::array<OwnedArray, 3> arrays{OwnedArray{"params", values.data<float>()},
                                         OwnedArray{"adam_m", m.data<float>()},
                                         OwnedArray{"adam_v", v.data<float>()}};
  std::string problem;
  std::filesystem::path folder;
  try {
    folder = save_checkpoint(config_.run.output, state, layout_of(buffers), owned, arrays,
                             communicator_);
  } catch (const SharedError& error) {
    problem = error.what();
  }
  if (!problem.empty()) {
    // A full disk must not end a run that could go on and save later; at its end there is no later.
    if (last) throw SharedError("the last checkpoint could not be saved: " + problem);
    note(concat("checkpoint at step ", step_, " not saved, the run goes on: ", problem));
    return;
  }
  saved_step_ = step_;
  if (leads() && skipped_in_a_row_ == 0) {
    try {
      prune_checkpoints(config_.run.output, config_.checkpoint.keep_last,
                        config_.checkpoint.keep_every, folder);
    } catch (const std::exception& error) {
      note(concat("older checkpoints could not be removed: ", error.what()));
    }
  }
  note(concat("saved ", folder.string(), " in ", seconds_since(begin), " s"));
}

void Trainer::check_identical(const std::string& when) {
  uint64_t hash = 0;
  const Tensor& values = model_->parameters().values;
  on_device(ctx_.exec, [&](auto& exec) { hash = hash_bytes(exec, values.raw(), values.bytes()); });
  require_identical(communicator_, hash, "parameters " + when);
}

}  // namespace

void train(Config config, const TrainOptions& options, Communicator& communicator) {
  install_stop_signals();
  const Place place = place_ranks(config.run.device, config.run.threads, communicator);
  Trainer(std::move(config), options, place).run();
}

}  // namespace rodimus
