#include "train/cpu_quota.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/temporary_folder.h"

namespace rodimus {
namespace {

using testing::TemporaryFolder;
using testing::write_bytes;

const std::string kMountV2 =
    "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate\n";
const std::string kMountV1 =
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";

// proc/ and sys/ of a process whose /proc/self/cgroup has the text `groups`.
class FakeRoot {
 public:
  FakeRoot(const std::string& mounts, const std::string& groups) {
    write_bytes(folder_ / "proc/self/mountinfo", mounts);
    write_bytes(folder_ / "proc/self/cgroup", groups);
  }
  FakeRoot& with(const std::string& file, const std::string& text) {
    write_bytes(folder_ / ("sys/fs/cgroup/" + file), text);
    return *this;
  }
  double quota() const { return cpu_quota(folder_.path()); }

 private:
  TemporaryFolder folder_;
};

TEST(CpuQuota, Version2) {
  EXPECT_EQ(FakeRoot(kMountV2, "0::/\n").with("cpu.max", "50000 100000\n").quota(), 0.5);
  EXPECT_EQ(FakeRoot(kMountV2, "0::/\n").with("cpu.max", "max 100000\n").quota(), INFINITY);
  EXPECT_EQ(FakeRoot(kMountV2, "0::/\n").quota(), INFINITY) << "the root group has no file";
}

TEST(CpuQuota, TheLeastOfAllLevelsCounts) {
  const auto nested = [](const char* outer, const char* middle, const char* inner) {
    return FakeRoot(kMountV2, "0::/a/b c/d\n")
        .with("a/cpu.max", outer)
        .with("a/b c/cpu.max", middle)
        .with("a/b c/d/cpu.max", inner)
        .quota();
  };
  EXPECT_EQ(nested("200000 100000", "max 100000", "800000 100000"), 2);
  EXPECT_EQ(nested("max 100000", "150000 100000", "max 100000"), 1.5);
  EXPECT_EQ(nested("max 100000", "max 100000", "20000 10000"), 2);
  EXPECT_EQ(nested("max 100000", "max 100000", "max 100000"), INFINITY);
}

TEST(CpuQuota, Version1) {
  const std::string groups = "4:memory:/\n3:cpu,cpuacct:/docker/abc\n2:cpuset:/\n";
  const auto with = [&](const std::string& mounts, const std::string& place, const char* quota) {
    return FakeRoot(mounts, groups)
        .with("cpu,cpuacct/" + place + "cpu.cfs_quota_us", quota)
        .with("cpu,cpuacct/" + place + "cpu.cfs_period_us", "100000\n")
        .quota();
  };
  EXPECT_EQ(with(kMountV1, "docker/abc/", "250000\n"), 2.5);
  EXPECT_EQ(with(kMountV1, "docker/", "300000\n"), 3);
  EXPECT_EQ(with(kMountV1, "docker/abc/", "-1\n"), INFINITY);
  // Inside the container only its own group is mounted, but its path is the host's.
  const std::string inside =
      "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n";
  EXPECT_EQ(with(inside, "", "50000\n"), 0.5);
  const std::string elsewhere =
      "32 31 0:29 /../.. /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n";
  EXPECT_EQ(with(elsewhere, "", "50000\n"), 0.5);
}

TEST(CpuQuota, BothVersionsAtOnce) {
  const std::string hybrid =
      kMountV1 + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
  FakeRoot root(hybrid, "3:cpu,cpuacct:/x\n0::/y\n");
  root.with("cpu,cpuacct/x/cpu.cfs_quota_us", "400000")
      .with("cpu,cpuacct/x/cpu.cfs_period_us", "100000");
  EXPECT_EQ(root.quota(), 4);
  root.with("unified/y/cpu.max", "100000 100000");
  EXPECT_EQ(root.quota(), 1);
}

TEST(CpuQuota, NonsenseDoesNotLimit) {
  for (const char* text :
       {"", "\n", "x", "-5 100000", "0 100000", "5 0", "5 -3", "5", "5 6 7", "nan nan",
        "99999999999999999999 100000", "max", "1e3 100000", "\xff\xfe \x01"}) {
    EXPECT_EQ(FakeRoot(kMountV2, "0::/\n").with("cpu.max", text).quota(), INFINITY) << text;
  }
  for (const char* groups : {"", "0::", "nonsense", "0::/../../x\n", "::::\n", "0:/\n"}) {
    EXPECT_EQ(FakeRoot(kMountV2, groups).with("x/cpu.max", "1 1").quota(), INFINITY) << groups;
  }
  for (const char* mounts :
       {"", "- - -", "31 23 0:28 / /sys/fs/cgroup - cgroup2", "cgroup2\n", "1 2 3 4 5 6 -\n"}) {
    EXPECT_EQ(FakeRoot(mounts, "0::/\n").with("cpu.max", "1 2").quota(), INFINITY) << mounts;
  }
  EXPECT_EQ(cpu_quota("/no/such/folder"), INFINITY);
  EXPECT_GT(cpu_quota(), 0) << "of this machine";
}

TEST(CpuQuota, IsSharedByTheRanksOfTheNode) {
  EXPECT_EQ(threads_within(INFINITY, 8, 1), 8);
  EXPECT_EQ(threads_within(0.5, 2, 1), 1);
  EXPECT_EQ(threads_within(1.2, 8, 1), 2) << "rounded up";
  EXPECT_EQ(threads_within(4, 8, 2), 2);
  EXPECT_EQ(threads_within(5, 8, 2), 3);
  EXPECT_EQ(threads_within(1, 8, 4), 1) << "at least one each";
  EXPECT_EQ(threads_within(100, 8, 2), 8) << "never more than the cores";
  EXPECT_EQ(threads_within(1e-9, 1, 1), 1);
}

TEST(CpuQuota, IsSaidInOneLine) {
  EXPECT_EQ(describe_quota(0.5, 2, 1), "2 cores, but the container's CPU quota is 0.5: 1 thread");
  EXPECT_EQ(describe_quota(5, 8, 2),
            "8 cores per rank, but the container's CPU quota is 5: 3 threads for each of 2 ranks");
  EXPECT_EQ(describe_quota(2, 2, 1), "");
  EXPECT_EQ(describe_quota(INFINITY, 2, 1), "");
}

}  // namespace
}  // namespace rodimus
