#include "train/trainer.h"

#include <array>
#include <chrono>
#include <memory>
#include <optional>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/progress.h"
#include "data/verified_files.h"
#include "kernels/reduce.h"
#include "layers/blocks.h"
#include "train/config/config_warnings.h"
#include "train/dry_step.h"
#include "train/inference/evaluate.h"
#include "train/inference/load_model.h"
#include "train/peak.h"
#include "train/prepare_run.h"
#include "train/resume.h"
#include "train/run_data.h"
#include "train/run_report.h"
#include "train/run_state.h"
#include "train/schedule.h"
#include "train/signals.h"
#include "train/step.h"

namespace rodimus {
namespace {

using Clock = std::chrono::steady_clock;

class Trainer {
 public:
  explicit Trainer(PreparedRun& run);  // takes run.sources; run.place must outlive the Trainer
  // Reads the checkpoint from which the run starts, and opens the run folder.
  void begin(const RunStart& start, const StartOptions& options, std::unique_ptr<RunLock> lock);
  void run();
  void note(const std::string& line) { report_.note(line); }

 private:
  bool leads() const { return communicator_.rank() == 0; }
  void open_output(int64_t resumed, std::unique_ptr<RunLock> lock);
  void begin_with(const std::filesystem::path& folder, const StartOptions& options);
  void resume_from(const std::filesystem::path& folder, bool other_data);
  void leave_out(int64_t steps);
  StepResult take_step();
  void report(const StepResult& result, double step_s);
  bool evaluation_due() const;
  bool evaluate();  // false if a stop signal came
  // `last`: no later save will follow, so a failure is an error; the same on every rank.
  void save(bool last);
  void check_identical(const std::string& when);

  const ResolvedConfig config_;
  Communicator& communicator_;
  Context ctx_;
  RunData data_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<Stepper> stepper_;
  std::unique_ptr<RunLock> lock_;
  RunReport report_;
  double peak_gflops_ = 0;      // of all ranks together
  double flops_per_token_ = 0;  // useful FLOPs of training

  RunState state_;  // save() updates its sample, updates and data
  int64_t saved_step_ = -1;
  double mean_step_s_ = 0;
};

Trainer::Trainer(PreparedRun& run)
    : config_(run.config),
      communicator_(*run.place.communicator),
      ctx_{run.place.exec, run.config.compute},
      report_(leads()) {
  data_ = open_data(std::move(run.sources), config_.model.vocab_size, config_.data.seq_len,
                    {.read = config_.data.verify,
                     .memory = std::filesystem::path(config_.run.output) / kVerifiedFile,
                     .remember = true},
                    communicator_);
  together(communicator_, [&] {
    if (data_.val && data_.val->predictable() == 0)
      fail("data.val: there is nothing to predict; no shard holds two tokens");
    model_ = std::make_unique<Model>(config_.model, ctx_.exec, ctx_.compute, /*grads=*/true);
    optimizer_ = make_optimizer(ctx_.exec, model_->parameters(), config_.optimizer);
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
                .tokens = config_.tokens_per_step(),
                .micro_batches = loader_->micro_batches_per_step(),
                .recompute = config_.run.recompute,
                .next = [this] { return to_tensors(ctx_.exec, loader_->next()); }});
  });
  if (leads()) {
    for (const std::string& line : config_warnings(config_, data_.train.get(), data_.val.get()))
      note("warning: " + line);
  }

  const double peak = config_.run.peak_gflops > 0 ? config_.run.peak_gflops
                                                  : measure_gemm_gflops(ctx_.exec, ctx_.compute);
  std::array<double, 1> sum{peak};
  communicator_.all_reduce_sum(std::span<double>(sum));
  peak_gflops_ = sum[0];
  flops_per_token_ = 3 * forward_flops_per_token(config_.model, config_.data.seq_len);
  note(concat(block_type(config_.model.block).title, ", ", model_->parameters().count(),
              " parameters, ", communicator_.world_size(), " ranks, each with ", run.place_text,
              ", ", data_.train->windows(), " windows of ", config_.data.seq_len,
              " tokens, GEMM peak ", static_cast<int64_t>(peak_gflops_), " GFLOP/s"));
}

void Trainer::begin(const RunStart& start, const StartOptions& options,
                    std::unique_ptr<RunLock> lock) {
  const bool resumes = start.from == RunStart::From::resume;
  together(communicator_, [&] {
    switch (start.from) {
      case RunStart::From::nothing:
        initialize(ctx_.exec, model_->parameters(), config_.run.seed);
        state_.data = data_.fingerprint;
        return;
      case RunStart::From::init:
        return begin_with(start.checkpoint, options);
      case RunStart::From::resume:
        return resume_from(start.checkpoint, options.other_data);
    }
  });
  const int64_t threads = config_.threads, before = std::exchange(state_.threads, threads);
  if (before > 0 && threads > 0 && before != threads) {
    note(concat(threads, " threads per rank, ", before, " before: results may differ by rounding"));
  }
  together(communicator_, [&] {
    if (leads()) open_output(resumes ? state_.step : -1, std::move(lock));
    if (start.skip_steps > 0) leave_out(start.skip_steps);
    // Their lines belong to the next step, so resuming at this one removed them from metrics.jsonl.
    for (const LeftOut& part : state_.left_out)
      if (part.step == state_.step) report_.left_out(part);
  });
  check_identical("at the start");
}

void Trainer::open_output(int64_t resumed, std::unique_ptr<RunLock> lock) {
  const std::filesystem::path folder = config_.run.output;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail("run.output = \"", folder.string(), "\": cannot be created: ", error.message());
  lock_ = lock ? std::move(lock) : std::make_unique<RunLock>(folder);
  if (resumed < 0 && !list_checkpoints(folder).empty()) {
    fail("run.output = \"", folder.string(),
         "\" has received checkpoints of another run; choose another folder, or run this again");
  }
  report_.open(folder, resumed, state_.evaluated_step);
  write_whole(folder / "config.toml", to_toml(config_));
  // A copy, so that a run folder can be moved, or read from elsewhere.
  if (data_.tokenizer) {
    write_whole(folder / kRunTokenizer, data_.tokenizer->model());
  } else {
    // Left by an earlier run in this folder.
    std::filesystem::remove(folder / kRunTokenizer, error);
  }
}

// Starts a new run with the parameters of another one.
void Trainer::begin_with(const std::filesystem::path& folder, const StartOptions& options) {
  const bool moments = options.init_moments;
  const CheckpointReader checkpoint(folder);
  require_run_tokenizer(data_, checkpoint.state().tokenizer_hash);
  for (const std::string& line : changes_of_model(config_of(checkpoint), config_))
    note("warning: " + line);
  if (moments) {
    restore(ctx_.exec, checkpoint, model_->parameters(), *optimizer_);
  } else {
    read_parameters(ctx_.exec, checkpoint, model_->parameters());
  }
  state_.data = data_.fingerprint;
  state_.init_from = named_for_init(options.init_from);
  state_.init_moments = moments;
  note(concat("a new run that starts with the parameters ", moments ? "and moments " : "", "of ",
              folder.string(), " (step ", checkpoint.state().step, ")"));
}

void Trainer::resume_from(const std::filesystem::path& folder, bool other_data) {
  const CheckpointReader checkpoint(folder);
  require_run_tokenizer(data_, checkpoint.state().tokenizer_hash);
  restore(ctx_.exec, checkpoint, model_->parameters(), *optimizer_);
  state_ = run_state(checkpoint);
  saved_step_ = state_.step;
  loader_->seek(state_.sample);
  if (std::exchange(state_.data, data_.fingerprint) != data_.fingerprint) {
    if (!other_data) {
      fail(
          "data.train is not what the checkpoint was trained on: the order of samples would "
          "change. Name the same shards in the same order, give --allow-other-data to continue ",
          "with these from sample ", state_.sample,
          " of their order, or start a new run on them with --init-from");
    }
    note("data.train has changed: from here on samples come in a different order");
  }
  const RateChange rate = rate_change(config_of(checkpoint), config_, state_.step);
  note(concat("resumed from ", folder.string(), ", step ", state_.step, ", sample ", state_.sample,
              rate.line.empty() ? "" : ", " + rate.line));
  if (rate.jump) {
    note("warning: the learning rate jumps by more than 10 %, because its schedule has changed; " +
         std::string("optimizer.schedule = \"wsd\" is meant for runs that may be extended"));
  }
}

// Skips the samples of the next `steps` steps for good.
void Trainer::leave_out(int64_t steps) {
  const uint64_t from = loader_->position();
  const uint64_t to =
      from + static_cast<uint64_t>(steps) * static_cast<uint64_t>(config_.run.global_batch);
  loader_->seek(to);
  state_.left_out.push_back({state_.step, steps, from, to});
}

StepResult Trainer::take_step() {
  const StepResult result =
      stepper_->step(learning_rate(config_.optimizer, config_.run.steps, state_.step));
  if (result.skipped) ++state_.skipped;
  state_.skipped_in_a_row = result.skipped ? state_.skipped_in_a_row + 1 : 0;
  ++state_.step;
  return result;
}

void Trainer::run() {
  bool stop = false;
  // The run may have been stopped between a step and its evaluation.
  if (state_.step > 0 && evaluation_due() && state_.evaluated_step != state_.step) {
    stop = !evaluate();
    if (!stop) save(state_.step >= config_.run.steps);  // so that the evaluation is not repeated
  }
  if (state_.step >= config_.run.steps && saved_step_ == state_.step && !stop) {
    note(concat("the run is complete: ", state_.step, " of ", config_.run.steps, " steps"));
  }
  while (state_.step < config_.run.steps && !stop) {
    const auto begin = Clock::now();
    const StepResult result = take_step();
    report(result, seconds_since(begin));
    if (state_.skipped_in_a_row > config_.run.max_skipped) {
      throw SharedError(concat("the loss or its gradient was not finite for ",
                               state_.skipped_in_a_row, " steps in a row (step ", state_.step,
                               "); lower optimizer.lr, or look at the data around sample ",
                               loader_->position()));
    }
    if (config_.run.check_every > 0 && state_.step % config_.run.check_every == 0) {
      check_identical(concat("after step ", state_.step));
    }
    stop = result.stop;
    if (!stop && evaluation_due()) stop = !evaluate();
    // During a streak of skipped steps something is wrong: good checkpoints must not be pruned in
    // favour of new copies of this state.
    const bool save_due = config_.checkpoint.every > 0 &&
                          state_.step % config_.checkpoint.every == 0 &&
                          state_.skipped_in_a_row == 0;
    if (stop || save_due || state_.step == config_.run.steps)
      save(stop || state_.step == config_.run.steps);
  }
  if (stop) {
    if (saved_step_ != state_.step) save(/*last=*/true);
    note(concat("stopped by a signal after step ", state_.step,
                ", saved; rerun the command to resume"));
  }
}

void Trainer::report(const StepResult& result, double step_s) {
  const auto tokens = static_cast<double>(config_.tokens_per_step());
  // A slowly moving mean, so that one slow step does not make the ETA jump.
  mean_step_s_ = mean_step_s_ == 0 ? step_s : 0.95 * mean_step_s_ + 0.05 * step_s;
  if (!leads()) return;
  const auto samples = static_cast<int64_t>(loader_->position() - state_.samples_left_out());
  StepReport line{.step = state_.step,
                  .total = config_.run.steps,
                  .loss = result.loss,
                  .lr = learning_rate(config_.optimizer, config_.run.steps, state_.step - 1),
                  .grad_norm = result.grad_norm,
                  .tokens_per_s = tokens / step_s,
                  .mfu = flops_per_token_ * tokens / step_s / (peak_gflops_ * 1e9),
                  .data_wait_s = result.data_wait_s,
                  .step_s = step_s,
                  .eta_s = mean_step_s_ * static_cast<double>(config_.run.steps - state_.step),
                  .tokens = samples * config_.data.seq_len,
                  .skipped = state_.skipped};
  const bool show = state_.step % config_.run.log_every == 0 || state_.step == config_.run.steps;
  report_.step(line, result.skipped, show);
}

bool Trainer::evaluation_due() const {
  if (!data_.val) return false;
  return state_.step == config_.run.steps ||
         (config_.run.eval_every > 0 && state_.step % config_.run.eval_every == 0);
}

bool Trainer::evaluate() {
  const EvalOptions options{.micro_batch = config_.run.micro_batch,
                            .limit = config_.run.eval_windows,
                            .reset_documents = config_.data.reset_documents,
                            .token_bytes = data_.token_bytes,
                            .text = data_.val_text};
  const auto result = evaluate_windows(*model_, ctx_, *data_.val, options, communicator_);
  if (!result) return false;
  state_.evaluated_step = state_.step;
  report_.evaluation(state_.step, *result);
  return true;
}

void Trainer::save(bool last) {
  const auto begin = Clock::now();
  state_.sample = loader_->position();
  state_.updates = optimizer_->updates();
  const TrainState stored = stored_form(state_, config_, tokenizer_hash(data_));
  std::string problem;
  std::filesystem::path folder;
  try {
    folder = save_run(config_.run.output, stored, ctx_.exec, model_->parameters(), *optimizer_,
                      communicator_);
  } catch (const NotFinite&) {
    throw;
  } catch (const SharedError& error) {
    problem = error.what();
  }
  if (!problem.empty()) {
    // A full disk must not end a run that could continue and save later; at the end of the run
    // there is no later save.
    if (last) throw SharedError("the last checkpoint could not be saved: " + problem);
    note(concat("checkpoint at step ", state_.step, " not saved, the run continues: ", problem));
    return;
  }
  saved_step_ = state_.step;
  if (leads() && state_.skipped_in_a_row == 0) {
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

void train(const Config& written, const StartOptions& options, Communicator& communicator) {
  install_stop_signals();
  PreparedRun run = prepare_run(written, options, communicator);
  std::optional<Trainer> trainer;
  try {
    trainer.emplace(run);
  } catch (const StoppedBySignal& stop) {  // nothing is lost: the same as a stop after a step
    if (communicator.rank() == 0) ProgressLine::on(stdout).note(stop.what());
    return;
  }
  for (const std::string& line : run.notes) trainer->note(line);
  trainer->begin(run.start, options, std::move(run.lock));
  trainer->run();
}

}  // namespace rodimus
