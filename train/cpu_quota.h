// The CPU time that a container or batch system allows: Linux control groups, versions 1 and 2. A
// process limited to half a core that starts one thread per core spends its time waiting for
// itself.
#pragma once

#include <filesystem>
#include <string>

namespace rodimus {

// The smallest quota, in cores, of the control groups of this process, up to the root of each
// hierarchy; infinity if there is no limit. What cannot be read or parsed counts as no limit.
// `root` contains proc/ and sys/; tests pass another one.
double cpu_quota(const std::filesystem::path& root = "/");

// Threads for each of `ranks` processes that share `quota` and may use `cores` cores each: the
// equal share rounded up, at least 1.
int threads_within(double quota, int cores, int ranks);

// "2 cores, but the container's CPU quota is 0.5: 1 thread"; "" if the quota is no restriction.
std::string describe_quota(double quota, int cores, int ranks);

}  // namespace rodimus
