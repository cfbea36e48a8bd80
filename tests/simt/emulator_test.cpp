// The emulator beyond the planted faults of planted_test.cpp: wrong pointers and launches, and that
// its counts are those that a GPU's profiler would show.
#include <gtest/gtest.h>

#include "tests/simt/device_array.h"
#include "tests/simt/planted.h"
#include "tests/support/random.h"

namespace rodimus {
namespace {

using planted::Bug;
using planted::OptIn;
using simt::DeviceArray;

class Emulator : public ::testing::Test {
 protected:
  void SetUp() override {
    simt::config = {};
    simt::clear_reports();
    simt::reset_counters();
  }
  static ::testing::AssertionResult found(const std::string& kind) {
    for (const simt::Report& report : simt::reports()) {
      if (report.kind == kind) return ::testing::AssertionSuccess();
    }
    return ::testing::AssertionFailure() << "no " << kind << " in:\n" << simt::report_text();
  }
};

TEST_F(Emulator, UseAfterFree) {
  auto in = std::make_unique<DeviceArray<float>>(std::vector<float>(32, 1.0f));
  const DeviceArray<float> out(32);
  const float* stale = in->data();
  ASSERT_EQ(planted::copy_floats(stale, out.data(), 32, nullptr), cudaSuccess);
  EXPECT_EQ(simt::report_text(), "");
  in.reset();
  ASSERT_EQ(planted::copy_floats(stale, out.data(), 32, nullptr), cudaSuccess);
  EXPECT_TRUE(found("global-oob"));
}

TEST_F(Emulator, HostPointerInKernel) {
  const std::vector<float> host(32, 1.0f);
  const DeviceArray<float> out(32);
  ASSERT_EQ(planted::copy_floats(host.data(), out.data(), 32, nullptr), cudaSuccess);
  EXPECT_TRUE(found("host-memory"));
  // Pinned memory is fine.
  simt::clear_reports();
  simt::allow_host(host.data(), host.size() * sizeof(float));
  ASSERT_EQ(planted::copy_floats(host.data(), out.data(), 32, nullptr), cudaSuccess);
  simt::forbid_host(host.data());
  EXPECT_EQ(simt::report_text(), "");
}

TEST_F(Emulator, DevicePointerOnHost) {
  const DeviceArray<float> x(std::vector<float>(1, 5.0f));
  EXPECT_EQ(planted::read_on_host(x.data()), 5.0f);
  EXPECT_TRUE(found("device-memory"));
}

TEST_F(Emulator, NeverWrittenDeviceMemory) {
  const DeviceArray<float> in(32), out(32);
  ASSERT_EQ(planted::copy_floats(in.data(), out.data(), 32, nullptr), cudaSuccess);
  EXPECT_TRUE(found("uninit"));
}

TEST_F(Emulator, ReportsNameTheLine) {
  const DeviceArray<float> in(31), out(32);
  simt::mark_written(in.data(), 31 * sizeof(float));
  ASSERT_EQ(planted::copy_floats(in.data(), out.data(), 32, nullptr), cudaSuccess);
  ASSERT_EQ(simt::reports().size(), 1u) << simt::report_text();
  EXPECT_NE(simt::reports()[0].message.find("planted.cu:"), std::string::npos);
  EXPECT_NE(simt::reports()[0].message.find("thread 31"), std::string::npos);
}

TEST_F(Emulator, MisalignedVectors) {
  const DeviceArray<float> in(std::vector<float>(12, 1.0f)), out(12);
  ASSERT_EQ(planted::copy_vectors(in.data() + 1, out.data(), 2, nullptr), cudaSuccess);
  EXPECT_TRUE(found("misaligned"));
}

// Limits that a GPU puts on launches. The kernel itself does not run.
class Launches : public Emulator {
 protected:
  void SetUp() override {
    Emulator::SetUp();
    simt::config.launch_only = true;
    simt::clear_launches();
  }
  void TearDown() override {
    simt::config.launch_only = false;
    simt::set_gpu("sm_80");
  }
  // Whether the emulator says `want`, and a report with it unless that is success.
  static ::testing::AssertionResult gives(cudaError_t want, OptIn opt_in, size_t dynamic,
                                          dim3 grid = 1, dim3 block = 1) {
    simt::clear_reports();
    const cudaError_t got = planted::use_shared(opt_in, grid, block, dynamic, nullptr);
    if (got != want) return ::testing::AssertionFailure() << "error " << got << ", not " << want;
    if (simt::report_text().empty() != (want == cudaSuccess || opt_in == OptIn::as_launch_does))
      return ::testing::AssertionFailure() << "reported: " << simt::report_text();
    return ::testing::AssertionSuccess();
  }
};

TEST_F(Launches, SharedMemoryBeyondTheDefaultIsForKernelsThatAsk) {
  constexpr size_t kDefault = (48 << 10) - planted::kStaticShared;
  EXPECT_TRUE(gives(cudaSuccess, OptIn::never, kDefault));
  EXPECT_TRUE(gives(cudaErrorInvalidValue, OptIn::never, kDefault + 1));
  // Static arrays count: 48 KiB and less of dynamic memory may already be too much.
  EXPECT_TRUE(gives(cudaErrorInvalidValue, OptIn::by_dynamic_part, kDefault + 1));
  EXPECT_TRUE(gives(cudaErrorInvalidValue, OptIn::by_dynamic_part, 48 << 10));
  EXPECT_TRUE(gives(cudaSuccess, OptIn::by_dynamic_part, (48 << 10) + 1));
  simt::set_gpu("sm_80");  // nobody has asked
  EXPECT_TRUE(gives(cudaSuccess, OptIn::as_launch_does, kDefault + 1));
  EXPECT_TRUE(gives(cudaSuccess, OptIn::as_launch_does, 48 << 10));
}

TEST_F(Launches, SharedMemoryIsThatOfTheGpu) {
  const std::pair<const char*, size_t> kMost[] = {
      {"sm_80", 163 << 10}, {"sm_86", 99 << 10}, {"sm_90", 227 << 10}, {"sm_100", 227 << 10}};
  for (const auto& [gpu, most] : kMost) {
    SCOPED_TRACE(gpu);
    simt::set_gpu(gpu);
    EXPECT_TRUE(gives(cudaSuccess, OptIn::as_launch_does, most - planted::kStaticShared));
    EXPECT_TRUE(
        gives(cudaErrorInvalidValue, OptIn::as_launch_does, most - planted::kStaticShared + 1));
  }
}

TEST_F(Launches, ShapesThatNoGpuTakes) {
  const auto shape = [](cudaError_t want, dim3 grid, dim3 block) {
    return gives(want, OptIn::never, 0, grid, block);
  };
  EXPECT_TRUE(shape(cudaSuccess, {0x7fffffff, 65535, 65535}, {16, 1, 64}));
  for (const dim3 grid :
       {dim3(0), dim3(1, 0), dim3(1, 1, 0), dim3(0x80000000u), dim3(1, 65536), dim3(1, 1, 65536)})
    EXPECT_TRUE(shape(cudaErrorInvalidConfiguration, grid, 32)) << grid.x << " " << grid.y;
  for (const dim3 block : {dim3(0), dim3(1, 0), dim3(1025), dim3(32, 33), dim3(1, 1, 65)})
    EXPECT_TRUE(shape(cudaErrorInvalidConfiguration, 1, block)) << block.x << " " << block.y;
}

TEST_F(Launches, AreRecordedOnceEach) {
  for (const size_t dynamic : {100, 200, 100})
    EXPECT_TRUE(gives(cudaSuccess, OptIn::never, dynamic, {2, 3}, {32, 4}));
  const std::vector<simt::Launch> all = simt::launches();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_NE(all[0].kernel.find("shared_kernel"), std::string::npos);
  EXPECT_EQ(all[0].grid.y, 3u);
  EXPECT_EQ(all[0].block.y, 4u);
  EXPECT_EQ(all[0].static_shared, planted::kStaticShared);
  EXPECT_EQ(all[0].dynamic_shared, 100u);
  EXPECT_EQ(all[1].dynamic_shared, 200u);
}

TEST_F(Emulator, StaticSharedMemoryStandsInTheKernel) {
  const DeviceArray<float> out(32);
  ASSERT_EQ(planted::use_shared(OptIn::as_launch_does, 1, 32, 0, out.data()), cudaSuccess);
  EXPECT_EQ(out.values()[0], 1.0f);
  EXPECT_FALSE(found("launch"));
  ASSERT_EQ(planted::use_hidden_shared(out.data()), cudaSuccess);
  EXPECT_TRUE(found("launch"));
}

TEST_F(Emulator, HookTakesLaunches) {
  const DeviceArray<float> in(std::vector<float>(32, 2.0f)), out(std::vector<float>(32, 0.0f));
  std::function<void()> later;
  simt::enqueue_hook = [&](cudaStream_t, std::function<void()> run) {
    later = std::move(run);
    return cudaSuccess;
  };
  const cudaError_t error = planted::copy_floats(in.data(), out.data(), 32, nullptr);
  simt::enqueue_hook = nullptr;
  ASSERT_EQ(error, cudaSuccess);
  EXPECT_EQ(out.values()[31], 0.0f);
  later();
  EXPECT_EQ(out.values()[31], 2.0f);
}

// Counts that can be written down by hand.
TEST_F(Emulator, CountsOfACopy) {
  simt::config.count = true;
  const DeviceArray<float> in(std::vector<float>(257, 1.0f)), out(256);
  ASSERT_EQ(planted::copy_floats(in.data(), out.data(), 256, nullptr), cudaSuccess);
  simt::Counters c = simt::counters();
  EXPECT_EQ(c.load_bytes, 1024u);
  EXPECT_EQ(c.store_bytes, 1024u);
  EXPECT_EQ(c.global_requests, 16u);  // 8 warps load, 8 store
  EXPECT_EQ(c.sectors, 64u);          // 4 each
  EXPECT_EQ(c.sector_efficiency(), 1.0);
  EXPECT_EQ(c.unique_load_bytes, 1024u);
  EXPECT_EQ(c.unique_store_bytes, 1024u);
  ASSERT_EQ(simt::kernel_counters().size(), 1u);
  EXPECT_NE(simt::kernel_counters()[0].first.find("copy_floats_kernel"), std::string::npos);
  const std::vector<simt::SiteCount> sites = simt::site_counters();
  ASSERT_EQ(sites.size(), 2u) << simt::counter_text();
  EXPECT_NE(sites[0].where.find("planted.cu:"), std::string::npos) << sites[0].where;

  // Shifted by one float each warp touches a fifth sector.
  simt::reset_counters();
  ASSERT_EQ(planted::copy_floats(in.data() + 1, out.data(), 256, nullptr), cudaSuccess);
  EXPECT_EQ(simt::counters().sectors, 8u * 5 + 32);
  EXPECT_EQ(simt::counters().ideal_sectors, 64u);
}

TEST_F(Emulator, CountsOfATranspose) {
  simt::config.count = true;
  const DeviceArray<float> in(testing::cast<float>(testing::normal(1024, 1))), out(1024);
  ASSERT_EQ(planted::transpose(Bug::none, in.data(), out.data(), nullptr), cudaSuccess);
  const simt::Counters c = simt::counters();
  EXPECT_EQ(c.wavefronts, 64u);  // one a row, one a column: the padding keeps banks apart
  EXPECT_EQ(c.shared_efficiency(), 1.0);
  EXPECT_EQ(c.shared_load_bytes, 4096u);
  EXPECT_EQ(c.shared_store_bytes, 4096u);
}

TEST_F(Emulator, CountsOfAProduct) {
  simt::config.count = true;
  constexpr int kSize = 128;
  const auto values = testing::cast<bf16>(testing::normal(kSize * kSize, 1));
  const DeviceArray<bf16> a(values), b(values), c(kSize * kSize);
  ASSERT_EQ(planted::gemm(Bug::none, a.data(), b.data(), c.data(), kSize, kSize, kSize, nullptr),
            cudaSuccess);
  const simt::Counters counted = simt::counters();
  EXPECT_EQ(counted.blocks, 4u);
  EXPECT_EQ(counted.mma, 128u / 16 * 128 / 8 * 128 / 16);  // 16 x 8 x 16 each
  EXPECT_EQ(counted.load_bytes, 4u * 2 * 64 * 128 * 2);    // each block a tile row of a and of b
  EXPECT_EQ(counted.unique_load_bytes, 2u * 128 * 128 * 2);
  EXPECT_EQ(counted.unique_store_bytes, 128u * 128 * 2);
  // Loads fill their sectors; of c, four lanes store 16 bytes of a row, half a sector.
  EXPECT_EQ(counted.sectors, 4096u + 2048);
  EXPECT_EQ(counted.ideal_sectors, 4096u + 1024);
  EXPECT_EQ(counted.shared_efficiency(), 1.0) << simt::counter_text();
}

}  // namespace
}  // namespace rodimus
