#include "train/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

std::string read_all(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

StepReport report(int64_t step) {
  StepReport r;
  r.step = step;
  r.total = 100;
  r.loss = 3 + 1.0 / static_cast<double>(step);
  r.lr = 0.1 + 0.2;
  r.step_s = 2;
  r.data_wait_s = 0.5;
  return r;
}

class Metrics : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / "metrics_test";
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    file_ = folder_ / "metrics.jsonl";
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_, file_;
};

TEST_F(Metrics, NumbersRoundTripAndNanIsNull) {
  MetricsWriter writer(file_, -1, -1);
  StepReport r = report(3);
  r.grad_norm = std::nan("");
  writer.step(r);
  writer.write("eval", 3,
               {{"loss", std::numeric_limits<double>::infinity()}, {"note", "a\n\"b\""}});
  std::ifstream in(file_);  // the writer is still open: lines appear at once
  std::string line;
  std::getline(in, line);
  const auto train = nlohmann::json::parse(line);
  EXPECT_EQ(train["kind"], "train");
  EXPECT_EQ(train["step"], 3);
  EXPECT_EQ(train["loss"].get<double>(), r.loss);
  EXPECT_EQ(train["lr"].get<double>(), r.lr);
  EXPECT_TRUE(train["grad_norm"].is_null());
  std::getline(in, line);
  const auto eval = nlohmann::json::parse(line);
  EXPECT_TRUE(eval["loss"].is_null());
  EXPECT_EQ(eval["note"], "a\n\"b\"");
  EXPECT_FALSE(std::getline(in, line));
}

TEST_F(Metrics, AResumedRunLeavesTheFileOfAStraightRun) {
  {
    MetricsWriter writer(file_, -1, -1);
    for (int64_t s = 1; s <= 10; ++s) writer.step(report(s));
  }
  const std::string straight = read_all(file_);
  {
    MetricsWriter writer(file_, -1, -1);  // fresh: earlier content is removed
    for (int64_t s = 1; s <= 7; ++s) writer.step(report(s));
  }
  // Truncated by a crash.
  std::ofstream(file_, std::ios::app) << "{\"kind\":\"train\",\"step\":2,\"lo";
  {
    MetricsWriter writer(file_, 4, 4);  // the last checkpoint was at step 4
    for (int64_t s = 5; s <= 10; ++s) writer.step(report(s));
  }
  EXPECT_EQ(read_all(file_), straight);
}

TEST_F(Metrics, DropsWhatIsNoLineOfMetrics) {
  std::ofstream(file_) << "{\"step\":1}\n"
                       << std::string(5, '\0')
                       << "\n[1]\n{\"step\":\"2\"}\n{\"x\":2}\n{\"step\":2}\n{\"step\":3}";
  { MetricsWriter writer(file_, 3, 3); }
  EXPECT_EQ(read_all(file_), "{\"step\":1}\n{\"step\":2}\n");
  EXPECT_FALSE(fs::exists(folder_ / "metrics.jsonl.tmp"));
}

TEST_F(Metrics, ResumeWithoutAFileStartsOne) {
  MetricsWriter writer(file_, 9, 9);
  writer.step(report(10));
  EXPECT_NE(read_all(file_).find("\"step\":10"), std::string::npos);
}

TEST_F(Metrics, AFolderThatIsNotThereIsAnError) {
  for (const int64_t resume : {-1, 3}) {
    try {
      MetricsWriter writer(folder_ / "absent" / "metrics.jsonl", resume, resume);
      FAIL();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("absent/metrics.jsonl"), std::string::npos);
    }
  }
}

TEST_F(Metrics, AFullDiskLosesLinesNotTheRun) {
  MetricsWriter writer(file_, -1, -1);
  writer.step(report(1));
  const std::string before = read_all(file_);
  // A file size limit in the middle of the next line stands in for a full disk.
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{before.size() + 10, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  ::testing::internal::CaptureStderr();
  writer.step(report(2));
  writer.step(report(3));
  const std::string warning = ::testing::internal::GetCapturedStderr();
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_all(file_), before);
  EXPECT_EQ(std::count(warning.begin(), warning.end(), '\n'), 1) << warning;
  writer.step(report(4));
  EXPECT_EQ(read_all(file_).find(before), 0u);
  EXPECT_NE(read_all(file_).find("\"step\":4"), std::string::npos);
}

TEST(Format, Durations) {
  EXPECT_EQ(format_duration(0), "0s");
  EXPECT_EQ(format_duration(59.4), "59s");
  EXPECT_EQ(format_duration(59.6), "1m00s");
  EXPECT_EQ(format_duration(200), "3m20s");
  EXPECT_EQ(format_duration(7500), "2h05m");
  EXPECT_EQ(format_duration(273600), "3d04h");
  EXPECT_EQ(format_duration(std::nan("")), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
}

TEST(Format, StepLine) {
  StepReport r = report(2);
  r.loss = std::log(20.0);
  r.lr = 1e-3;
  r.grad_norm = 0.5124;
  r.tokens_per_s = 2315.4;
  r.mfu = 0.412;
  r.eta_s = 200;
  EXPECT_EQ(format_step(r),
            "step 2/100  loss 2.9957  ppl 20  lr 1.00e-03  norm 0.512  2315 tok/s  MFU 41.2 %  "
            "data 25.0 %  ETA 3m20s");
  r.skipped = 3;
  EXPECT_NE(format_step(r).find("skipped 3"), std::string::npos);
}

// What a ProgressLine prints for steps 1 .. 5 of 5, one per `gap` seconds, with a note after 3.
std::string printed(bool terminal, double gap) {
  std::FILE* out = std::tmpfile();
  {
    double time = 0;
    ProgressLine line(
        {.out = out, .terminal = terminal, .interval_s = 5, .now = [&] { return time; }});
    for (int64_t s = 1; s <= 5; ++s, time += gap) {
      StepReport r = report(s);
      r.total = 5;
      line.step(r);
      if (s == 3) line.note("eval");
    }
  }
  std::rewind(out);
  std::string text;
  for (int c = std::fgetc(out); c != EOF; c = std::fgetc(out)) text += static_cast<char>(c);
  std::fclose(out);
  return text;
}

int64_t lines_with(const std::string& text, const std::string& part) {
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(Progress, AFileGetsFewWholeLines) {
  EXPECT_EQ(lines_with(printed(false, 6), "step "), 5);
  const std::string rare = printed(false, 1);
  EXPECT_EQ(lines_with(rare, "step "), 2);  // the first and the last
  EXPECT_EQ(lines_with(rare, "step 5/5"), 1);
  EXPECT_EQ(lines_with(rare, "eval\n"), 1);
  EXPECT_EQ(rare.find('\r'), std::string::npos);
  EXPECT_EQ(rare.back(), '\n');
}

TEST(Progress, ATerminalLineIsRewritten) {
  const std::string text = printed(true, 1);
  EXPECT_EQ(lines_with(text, "step "), 5);
  EXPECT_EQ(lines_with(text, "\n"), 2);  // after the note and after the last step
  EXPECT_EQ(lines_with(text, "\r\x1b[Keval\n"), 1);
  EXPECT_EQ(text.back(), '\n');
  EXPECT_EQ(lines_with(printed(true, 0.01), "step "), 2);
}

TEST_F(Metrics, DropsAnEvaluationThatTheCheckpointDoesNotKnow) {
  {
    MetricsWriter writer(file_, -1, -1);
    for (const int64_t step : {2, 4}) {
      writer.write("train", step, {{"loss", 1.0}});
      writer.write("eval", step, {{"loss", 2.0}});
    }
  }
  { MetricsWriter writer(file_, 4, 2); }
  std::ifstream in(file_);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << text;
  EXPECT_EQ(text.find("{\"kind\":\"eval\",\"step\":4"), std::string::npos) << text;
}

}  // namespace
}  // namespace rodimus
