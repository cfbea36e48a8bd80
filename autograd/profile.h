// Where the time of a step goes: a table by op. Scopes nest, and time belongs to the innermost one,
// so the rows always add up to the total; time outside every scope goes to the row "unaccounted". A
// null Profile* costs one branch per op.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rodimus {

// The least that any kernel must do: matrix-product FLOPs (a multiply-add is two; elementwise
// arithmetic is not counted), and the bytes moved when every operand is read or written once.
struct Cost {
  double flop = 0, bytes = 0;
};

// An op as the table shows it. `name` must outlive the profile: a literal. in, out: sizes that
// distinguish projections, or 0.
struct Op {
  std::string_view name = {};
  Cost forward = {}, backward = {};
  int64_t in = 0, out = 0;
};

class Profile {
 public:
  // forward_backward: an op that does both in one pass. recomputed: a forward pass repeated during
  // backward, which does not count as useful FLOPs. step: work done once per step or micro-batch.
  enum class Phase : uint8_t { forward, recomputed, forward_backward, backward, step };
  struct Row {
    Op op;
    Phase phase = Phase::step;
    int64_t calls = 0;
    double seconds = 0;
    Cost cost = {};
  };

  // The clock runs from start() to stop(); both must be called outside any scope.
  void start();
  void stop();

  // The clock of a device that runs work after it was queued: each op is charged the time of its
  // own work, and the host does not wait between start() and stop(). Without it, host time is
  // measured.
  struct DeviceClock {
    std::function<void()> mark;                 // a moment behind the work queued so far
    std::function<std::vector<double>()> read;  // waits; seconds from each mark to the next
  };
  void use(DeviceClock clock) { device_ = std::move(clock); }

  // In order of the first call; row 0 is "unaccounted".
  std::span<const Row> rows() const { return rows_; }
  double seconds() const;  // sum of the rows

  // While true, forward ops count as recomputed.
  void set_replaying(bool replaying) { replaying_ = replaying; }

  class Scope {
   public:
    Scope(Profile* profile, const Op& op, Phase phase = Phase::forward);
    // Throws what the device's clock throws, unless another exception is already in flight.
    ~Scope() noexcept(false);
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Profile* profile_;
    size_t outer_ = 0;
    int errors_ = 0;  // exceptions in flight when the scope began
  };

 private:
  using Clock = std::chrono::steady_clock;
  void charge();  // adds the time since the last switch to the open row
  size_t row_of(const Op& op, Phase phase);

  std::vector<Row> rows_;
  size_t open_ = 0;
  Clock::time_point since_;
  bool replaying_ = false;
  DeviceClock device_;
  std::vector<size_t> charged_;  // the row that is charged with the time up to each mark
};

std::string_view name_of(Profile::Phase phase);
std::string label_of(const Op& op);  // "linear 256 -> 512"

// 2 m n k: the FLOPs of a matrix product.
double matmul_flops(int64_t m, int64_t n, int64_t k);

}  // namespace rodimus
