#include "data/loader.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace rodimus {

Loader::Loader(const Dataset& dataset, LoaderConfig config)
    : dataset_(dataset), config_(config), sampler_(dataset.windows(), config.seed, config.shuffle) {
  CHECK(config.world_size >= 1 && config.rank >= 0 && config.rank < config.world_size,
        "Loader: rank ", config.rank, " of ", config.world_size);
  CHECK(config.prefetch >= 1, "Loader: prefetch = ", config.prefetch, ", need at least 1");
  if (config.global_batch < 1 || config.micro_batch < 1) {
    fail("global batch ", config.global_batch, " and micro-batch ", config.micro_batch,
         " must be at least 1");
  }
  const int64_t per_pass = config.world_size * config.micro_batch;
  if (config.global_batch % per_pass != 0) {
    fail("global batch ", config.global_batch, " is not a multiple of ", config.world_size,
         " ranks x micro-batch ", config.micro_batch, " = ", per_pass, "; change one of the three");
  }
  micro_batches_ = config.global_batch / per_pass;
  start();
}

Loader::~Loader() { stop(); }

void Loader::start() {
  stopping_ = false;
  thread_ = std::thread([this, sample = position_] { prefetch(sample); });
}

void Loader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  ready_.clear();
  exception_ = nullptr;
}

void Loader::prefetch(uint64_t first_of_step) {
  try {
    for (;; first_of_step += static_cast<uint64_t>(config_.global_batch)) {
      for (int64_t m = 0; m < micro_batches_; ++m) {
        Batch batch = load(first_of_step, m);
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] {
          return stopping_ || ready_.size() < static_cast<size_t>(config_.prefetch);
        });
        if (stopping_) return;
        ready_.push_back(std::move(batch));
        changed_.notify_all();
      }
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    exception_ = std::current_exception();
    changed_.notify_all();
  }
}

Batch Loader::load(uint64_t first_of_step, int64_t micro_batch) const {
  const int64_t B = config_.micro_batch, T = dataset_.seq_len();
  Batch batch;
  batch.B = B;
  batch.T = T;
  batch.inputs.resize(static_cast<size_t>(B * T));
  batch.targets.resize(static_cast<size_t>(B * T));
  if (config_.document_starts) batch.starts.resize(static_cast<size_t>(B * T));
  batch.first_sample =
      first_of_step + static_cast<uint64_t>((config_.rank * micro_batches_ + micro_batch) * B);
  std::vector<int32_t> window(static_cast<size_t>(T + 1));
  for (int64_t b = 0; b < B; ++b) {
    int32_t* starts = config_.document_starts ? batch.starts.data() + b * T : nullptr;
    dataset_.read(sampler_.window(batch.first_sample + static_cast<uint64_t>(b)), window.data(),
                  starts);
    std::copy_n(window.begin(), T, batch.inputs.begin() + b * T);
    std::copy_n(window.begin() + 1, T, batch.targets.begin() + b * T);
  }
  return batch;
}

Batch Loader::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty() || exception_; });
  // Batches before the broken one are valid and come first.
  if (ready_.empty()) std::rethrow_exception(exception_);
  Batch batch = std::move(ready_.front());
  ready_.pop_front();
  lock.unlock();
  changed_.notify_all();
  if (++taken_ == micro_batches_) {
    taken_ = 0;
    position_ += static_cast<uint64_t>(config_.global_batch);
  }
  return batch;
}

void Loader::seek(uint64_t sample) {
  stop();
  position_ = sample;
  taken_ = 0;
  start();
}

}  // namespace rodimus
