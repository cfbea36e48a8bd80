#include "kernels/dry.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/memory.h"

namespace rodimus {
namespace {

// No address of x86-64 or AArch64 has bit 62 and not bit 63: every access faults.
constexpr uintptr_t kNowhere = uintptr_t{1} << 62;

thread_local DryMemory* current = nullptr;
thread_local std::string_view current_name = kWorkspace;

}  // namespace

struct DryMemory::State {
  Device stands_for;
  int64_t in_use = 0, peak = 0;
  std::vector<Part> parts, peak_parts;

  size_t part(std::string_view name) {
    const auto found =
        std::find_if(parts.begin(), parts.end(), [&](const Part& p) { return p.name == name; });
    if (found != parts.end()) return static_cast<size_t>(found - parts.begin());
    parts.push_back({name, 0});
    return parts.size() - 1;
  }
  void add(size_t index, int64_t bytes) {
    parts[index].bytes += bytes;
    in_use += bytes;
    if (in_use <= peak) return;
    peak = in_use;
    peak_parts = parts;
  }
};

DryMemory::DryMemory(Device stands_for) : state_(std::make_shared<State>()) {
  CHECK(current == nullptr, "DryMemory: one at a time in a thread");
  state_->stands_for = stands_for;
  current = this;
}

DryMemory::~DryMemory() { current = nullptr; }

DryMemory& DryMemory::of_this_thread() {
  CHECK(current != nullptr, "a dry run without a DryMemory");
  return *current;
}

int64_t DryMemory::in_use() const { return state_->in_use; }
int64_t DryMemory::peak() const { return state_->peak; }
void DryMemory::reset_peak() {
  state_->peak = state_->in_use;
  state_->peak_parts = state_->parts;
}
std::vector<DryMemory::Part> DryMemory::at_peak() const { return state_->peak_parts; }

std::shared_ptr<std::byte> DryMemory::allocate(int64_t bytes) {
  const int64_t taken = memory::taken(bytes, state_->stands_for);
  const size_t part = state_->part(current_name);
  state_->add(part, taken);
  return {reinterpret_cast<std::byte*>(kNowhere),
          [state = state_, part, taken](std::byte*) { state->add(part, -taken); }};
}

void count_scratch(const ScratchBytes& blocks) {
  const Named named(kWorkspace);
  std::vector<std::shared_ptr<std::byte>> alive;
  for (const int64_t bytes : blocks) alive.push_back(DryMemory::of_this_thread().allocate(bytes));
}

Named::Named(std::string_view name) : outer_(current_name) { current_name = name; }
Named::~Named() { current_name = outer_; }

}  // namespace rodimus
