// The memory of a dry run (Dry in exec.h): nothing is allocated; what would be live is counted by
// name.
//
// A tensor of Device::dry has a shape, and data() gives an address that no process can read: host
// code that dereferences it crashes instead of reading garbage. on_host() throws. Values that
// kernels return to the host keep their initial value (0 for losses and norms), so a dry step has a
// finite loss.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "kernels/exec.h"

namespace rodimus {

// Counts what this thread allocates on Device::dry from its construction to its end; one at a time.
// Blocks may outlive this object.
class DryMemory {
 public:
  // `stands_for`: the device whose size classes are used.
  explicit DryMemory(Device stands_for);
  ~DryMemory();
  DryMemory(const DryMemory&) = delete;
  DryMemory& operator=(const DryMemory&) = delete;
  static DryMemory& of_this_thread();  // throws Error if there is none

  int64_t in_use() const;  // bytes, as memory::Stats counts them
  int64_t peak() const;    // the most in use at once since the last reset_peak()
  void reset_peak();
  // What was live when the peak was first reached, in order of first allocation.
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

// Counts the blocks that this thread allocates until the end of the scope under `name`, a literal.
// Scopes nest; outside all scopes the name is kWorkspace. Costs next to nothing in a real run.
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
