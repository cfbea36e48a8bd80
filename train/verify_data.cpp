#include "train/verify_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <iterator>
#include <numeric>
#include <set>

#include "base/atomic_file.h"
#include "base/progress.h"
#include "data/file_check.h"
#include "train/signals.h"

namespace rodimus {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kRoundSeconds = 1;  // between exchanges with the other ranks
constexpr uint64_t kPieceBytes = uint64_t{16} << 20;
constexpr int64_t kRoundsPerWrite = 30;  // a kill loses at most this much

template <class T>
void add(Xxh64& hash, const T& value) {
  hash.update(std::as_bytes(std::span(&value, 1)));
}

class Verification {
 public:
  Verification(const std::vector<const Shard*>& shards, int64_t vocab_size,
               const VerifyOptions& options, Communicator& communicator)
      : options_(options), communicator_(communicator) {
    require_same_data(shards);
    find_workers(identity_of(shards));
    check_structure(shards, vocab_size);
    if (options.read) find_tasks(shards, vocab_size);
  }

  void run();

 private:
  bool leads() const { return communicator_.rank() == 0; }
  void require_same_data(const std::vector<const Shard*>& shards);
  void find_workers(int64_t identity);
  static int64_t identity_of(const std::vector<const Shard*>& shards);
  void check_structure(const std::vector<const Shard*>& shards, int64_t vocab_size);
  void find_tasks(const std::vector<const Shard*>& shards, int64_t vocab_size);
  void read_all(Progress& progress);
  void remember();
  void write(const VerifiedFiles& files) const;

  const VerifyOptions& options_;
  Communicator& communicator_;
  // Ranks that see the same files; this one's index.
  int workers_ = 0, worker_ = 0;
  bool as_rank_0_ = false;  // rank 0 sees the same files
  struct Task {
    FileCheck check;
    size_t slot;  // index of the file among all files of the run, the same on every rank
  };
  size_t slots_ = 0;
  VerifiedFiles known_;      // of this run's files, in their current state
  std::vector<Task> tasks_;  // to be read by all workers together
  std::vector<size_t> mine_;
  uint64_t bytes_ = 0;  // of mine_
};

void Verification::require_same_data(const std::vector<const Shard*>& shards) {
  Xxh64 hash;
  for (const Shard* shard : shards) {
    add(hash, shard->bin().bytes().size());
    add(hash, shard->documents());
    add(hash, shard->idx() != nullptr);
    add(hash, shard->info() ? shard->info()->bin_xxh64 : uint64_t{0});
  }
  require_identical(communicator_, hash.digest(), "shards (number, sizes, checksums)");
}

// A number that identifies these very files (a copy has another inode). Not negative.
int64_t Verification::identity_of(const std::vector<const Shard*>& shards) {
  Xxh64 hash;
  for (const Shard* shard : shards) {
    for (const MappedFile* file : {&shard->bin(), shard->idx()}) {
      if (file == nullptr) continue;
      add(hash, file->mtime_ns());
      add(hash, file->inode());
    }
  }
  return static_cast<int64_t>(hash.digest() >> 1);
}

// On a file system shared by all machines these are all ranks; copies on local disks must each be
// read.
void Verification::find_workers(int64_t identity) {
  std::vector<int64_t> identities(static_cast<size_t>(communicator_.world_size()), 0);
  identities[static_cast<size_t>(communicator_.rank())] = identity;
  communicator_.all_reduce_max(identities);
  for (int rank = 0; rank < communicator_.world_size(); ++rank) {
    if (identities[static_cast<size_t>(rank)] != identity) continue;
    if (rank == communicator_.rank()) worker_ = workers_;
    ++workers_;
  }
  as_rank_0_ = identities[0] == identity;
}

void Verification::check_structure(const std::vector<const Shard*>& shards, int64_t vocab_size) {
  std::vector<uint64_t> sizes;
  for (const Shard* shard : shards)
    sizes.push_back(shard->idx() ? shard->idx()->bytes().size() : 0);
  const std::vector<int> owners = share_work(sizes, workers_);
  together(communicator_, [&] {
    for (size_t i = 0; i < shards.size(); ++i) {
      shards[i]->require_vocab(vocab_size);
      if (owners[i] == worker_) shards[i]->check_structure();
    }
  });
}

void Verification::find_tasks(const std::vector<const Shard*>& shards, int64_t vocab_size) {
  std::string text;
  if (leads() && !options_.memory.empty()) {
    std::ifstream stream(options_.memory, std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(stream), {});
  }
  const VerifiedFiles before = parse_verified(broadcast_text(communicator_, std::move(text), 0));
  std::set<std::string> seen;  // train and val may share a shard
  for (const Shard* shard : shards) {
    slots_ += 2;
    for (const FileCheck::Part part : {FileCheck::Part::index, FileCheck::Part::tokens}) {
      if (part == FileCheck::Part::index && shard->idx() == nullptr) continue;
      const size_t slot = slots_ - (part == FileCheck::Part::index ? 1 : 2);
      FileCheck check(*shard, part, vocab_size);
      if (!check.is_needed() || !seen.insert(check.path()).second) continue;
      if (check.known_by(before)) {
        known_[check.path()] = before.at(check.path());
      } else {
        tasks_.push_back({std::move(check), slot});
      }
    }
  }
  std::vector<uint64_t> sizes;
  for (const Task& task : tasks_) sizes.push_back(task.check.bytes());
  const std::vector<int> owners = share_work(sizes, workers_);
  for (size_t i = 0; i < tasks_.size(); ++i) {
    if (owners[i] != worker_) continue;
    mine_.push_back(i);
    bytes_ += tasks_[i].check.bytes();
  }
}

void Verification::run() {
  if (!options_.read) return;
  const auto begin = Clock::now();
  std::array<double, 2> total{static_cast<double>(bytes_), static_cast<double>(mine_.size())};
  communicator_.all_reduce_sum(std::span<double>(total));
  if (total[1] == 0) {
    if (leads() && !known_.empty())
      fmt::print(stderr, "{} shard files were verified earlier ({}) and are not read again\n",
                 known_.size(), options_.memory.native());
    return;
  }
  Progress progress("verifying shards:", static_cast<uint64_t>(total[0]), leads());
  try {
    read_all(progress);
  } catch (const SharedError&) {
    progress.finish("");
    remember();
    throw;
  }
  progress.finish(fmt::format("verified {} shard files, {:.1f} MB in {:.1f} s{}", total[1],
                              total[0] * 1e-6, seconds_since(begin),
                              known_.empty() ? "" : fmt::format("; {} before", known_.size())));
  remember();
}

void Verification::read_all(Progress& progress) {
  uint64_t read = 0;
  size_t next = 0;  // index into mine_
  for (int64_t round = 1;; ++round) {
    together(communicator_, [&] {
      const auto begin = Clock::now();
      while (next < mine_.size() && seconds_since(begin) < kRoundSeconds && !stop_requested()) {
        FileCheck& task = tasks_[mine_[next]].check;
        read += task.advance(kPieceBytes);
        if (task.done()) ++next;
      }
    });
    std::array<double, 3> sums{static_cast<double>(read), next < mine_.size() ? 1.0 : 0.0,
                               stop_requested() ? 1.0 : 0.0};
    communicator_.all_reduce_sum(std::span<double>(sums));
    progress.update(static_cast<uint64_t>(sums[0]));
    if (sums[1] == 0) return;
    if (sums[2] > 0) {
      throw StoppedBySignal(
          "stopped by a signal while the shards were verified; rerun the command to continue from "
          "there");
    }
    if (round % kRoundsPerWrite == 0) remember();
  }
}

// Collective. Records what has been read so far of the files that rank 0 sees.
void Verification::remember() {
  std::vector<int64_t> facts(4 * slots_, 0);
  for (const size_t i : mine_) {
    const auto& [check, slot] = tasks_[i];
    if (!as_rank_0_ || !check.done()) continue;
    const VerifiedFile file = check.result();
    facts[4 * slot] = 1;
    facts[4 * slot + 1] = static_cast<int64_t>(file.xxh64 >> 32);
    facts[4 * slot + 2] = static_cast<int64_t>(file.xxh64 & 0xffffffff);
    facts[4 * slot + 3] = file.largest_token + 1;
  }
  communicator_.all_reduce_max(facts);
  if (!leads() || !options_.remember) return;
  VerifiedFiles files = known_;
  for (const auto& [check, slot] : tasks_) {
    if (facts[4 * slot] == 0) continue;
    VerifiedFile file = check.result();
    file.xxh64 = static_cast<uint64_t>(facts[4 * slot + 1]) << 32 |
                 static_cast<uint64_t>(facts[4 * slot + 2]);
    file.largest_token = facts[4 * slot + 3] - 1;
    files[check.path()] = file;
  }
  write(files);
}

// If the record cannot be written, the next start takes longer, but this run continues.
void Verification::write(const VerifiedFiles& files) const {
  try {
    std::filesystem::create_directories(options_.memory.parent_path());
    write_whole(options_.memory, to_json(files));
  } catch (const std::exception& error) {
    fmt::print(stderr, "rodimus: warning: the next start will read the shards again: {}\n",
               error.what());
  }
}

}  // namespace

std::vector<int> share_work(const std::vector<uint64_t>& sizes, int workers) {
  std::vector<size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return sizes[a] > sizes[b]; });
  std::set<std::pair<uint64_t, int>> load;  // the first has the least work
  for (int worker = 0; worker < workers; ++worker) load.emplace(0, worker);
  std::vector<int> owners(sizes.size());
  for (const size_t task : order) {
    const auto [bytes, worker] = *load.begin();
    load.erase(load.begin());
    owners[task] = worker;
    load.emplace(bytes + sizes[task], worker);
  }
  return owners;
}

void verify_shards(const std::vector<const Shard*>& shards, int64_t vocab_size,
                   const VerifyOptions& options, Communicator& communicator) {
  Verification(shards, vocab_size, options, communicator).run();
}

}  // namespace rodimus
