// CPU time as a container or batch system limits it: control groups of Linux, version 1 and 2. A
// process under half a core that starts a thread for each core of the machine waits for itself.
#pragma once

#include <filesystem>
#include <string>

namespace rodimus {

// The least quota, in cores, of the control groups that this process is in, up to the root of each
// hierarchy; infinity when none is limited. What cannot be read or understood does not limit.
// `root` holds proc/ and sys/: another one for tests.
double cpu_quota(const std::filesystem::path& root = "/");

// Threads for each of `ranks` processes that share `quota` and may use `cores` cores each: the
// share rounded up, at least 1.
int threads_within(double quota, int cores, int ranks);

// "2 cores, but the container's CPU quota is 0.5: 1 thread"; "" when the quota takes nothing away.
std::string describe_quota(double quota, int cores, int ranks);

}  // namespace rodimus
