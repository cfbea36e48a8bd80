// The memory of a dry run (Dry in exec.h): no byte is taken, what would live is counted by name.
//
// A tensor of Device::dry has a shape, and data() gives an address that no process can read: the
// host that follows it is ended at once, not fed with numbers. on_host() throws. What kernels
// return to the host keeps the value that it had before (0 for losses and norms), so a dry step is
// one with a finite loss.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "kernels/exec.h"

namespace rodimus {

// Counts what this thread allocates on Device::dry from its construction to its end; one at a time.
// Blocks may outlive it.
class DryMemory {
 public:
  // `stands_for`: whose size classes count.
  explicit DryMemory(Device stands_for);
  ~DryMemory();
  DryMemory(const DryMemory&) = delete;
  DryMemory& operator=(const DryMemory&) = delete;
  static DryMemory& of_this_thread();  // throws Error where there is none

  int64_t in_use() const;  // bytes, as memory::Stats counts them
  int64_t peak() const;    // most that was in use at once since the last reset_peak()
  void reset_peak();
  // What made up the peak, when it was first reached; in order of the first allocation.
  struct Part {
    std::string_view name;
    int64_t bytes = 0;
  };
  std::vector<Part> at_peak() const;

  std::shared_ptr<std::byte> allocate(int64_t bytes);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Blocks that this thread allocates until the end of the scope are counted under `name`, a literal.
// Scopes nest; outside of all the name is kWorkspace. Costs next to nothing in a real run.
inline constexpr std::string_view kWorkspace = "workspace";
class Named {
 public:
  explicit Named(std::string_view name);
  ~Named();
  Named(const Named&) = delete;
  Named& operator=(const Named&) = delete;

 private:
  std::string_view outer_;
};

}  // namespace rodimus
