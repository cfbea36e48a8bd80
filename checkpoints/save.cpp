// The commit protocol. See save_checkpoint() for its guarantees.
#include "checkpoints/save.h"

#include <fmt/format.h>

#include <limits>
#include <random>
#include <unordered_set>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "checkpoints/files.h"
#include "checkpoints/folders.h"
#include "checkpoints/layout.h"
#include "checkpoints/metadata.h"
#include "checkpoints/rank_file.h"
#include "checkpoints/virtual_file.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNotShared = "; run.output must be on a file system that all ranks share";

std::string random_id() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", device(), device(), device(), device());
}

// Every rank contributes `mine` and receives the values of all ranks, in rank order.
std::vector<int64_t> gather(Communicator& communicator, std::span<const int64_t> mine) {
  const auto ranks = static_cast<size_t>(communicator.world_size());
  const auto rank = static_cast<size_t>(communicator.rank());
  std::vector<int64_t> all(ranks * mine.size(), std::numeric_limits<int64_t>::min());
  std::copy(mine.begin(), mine.end(),
            all.begin() + static_cast<std::ptrdiff_t>(rank * mine.size()));
  communicator.all_reduce_max(all);
  return all;
}

void check_arrays(std::span<const OwnedArray> arrays, Range owned) {
  std::unordered_set<std::string> groups;
  CHECK(!arrays.empty(), "save_checkpoint: no arrays");
  for (const OwnedArray& array : arrays) {
    CHECK(!array.group.empty() &&
              array.group.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos,
          "save_checkpoint: '", array.group, "' cannot be a group: lower-case letters and _ only");
    CHECK(groups.insert(array.group).second, "save_checkpoint: group ", array.group, " twice");
    CHECK(array.data != nullptr || owned.size() == 0, "save_checkpoint: ", array.group, " is null");
  }
}

}  // namespace

struct CheckpointSave::Impl {
  fs::path run_folder, temporary;
  Metadata metadata;
  std::vector<OwnedArray> arrays;
  int rank = 0;
  bool temporary_made = false;
  FileSum sum;
  std::string failure = "save_checkpoint: commit() without write()";

  ~Impl() { discard(); }

  void prepare(Range owned, Communicator& communicator);
  void finish(const std::vector<int64_t>& sums) const;
  void discard() noexcept {
    if (!std::exchange(temporary_made, false)) return;
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
  }
};

void CheckpointSave::Impl::prepare(Range owned, Communicator& communicator) {
  together(communicator, [&] {
    check_layout(metadata.layout);
    CHECK(metadata.state.step >= 0, "save_checkpoint: step ", metadata.state.step);
    check_arrays(arrays, owned);
  });
  const std::vector<int64_t> ranges = gather(communicator, std::vector{owned.begin, owned.end});
  for (size_t i = 0; i < ranges.size(); i += 2) {
    metadata.ranges.push_back({ranges[i], ranges[i + 1]});
  }
  together(communicator, [&] { check_ranges(metadata.ranges, metadata.layout.size); });
  require_identical(communicator, xxh64(format_metadata(metadata)),
                    "step, sample and tensors of the checkpoint");

  metadata.id = broadcast_text(communicator, rank == 0 ? random_id() : "", 0);
  temporary = run_folder / temporary_name(metadata.state.step, metadata.id);
  together(communicator, [&] {
    if (rank != 0) return;
    std::error_code error;
    fs::create_directories(run_folder, error);
    // create_directories and create_directory report "not a directory" differently: use the
    // latter's error.
    if (!error) temporary_made = fs::create_directory(temporary, error);
    if (error) fail_errno("cannot create", temporary, error.value());
  });
  together(communicator, [&] {
    std::error_code ignored;
    if (!fs::is_directory(temporary, ignored))
      fail("cannot see ", temporary.string(), ", which rank 0 has made", kNotShared);
  });
}

// On rank 0, after every rank has written: `sums` holds the size and checksum of each file.
void CheckpointSave::Impl::finish(const std::vector<int64_t>& sums) const {
  Manifest manifest{metadata.id, metadata.state.step, metadata.world_size(), {}};
  for (int r = 0; r < metadata.world_size(); ++r) {
    const auto at = static_cast<size_t>(2 * r);
    manifest.files.push_back({rank_file_name(r), {sums[at], static_cast<uint64_t>(sums[at + 1])}});
    const fs::path file = temporary / manifest.files.back().name;
    const int64_t seen = size_of_file(file);
    if (seen != sums[at])
      fail("rank ", r, " wrote ", sums[at], " bytes to ", file.string(), ", rank 0 sees ",
           seen < 0 ? "no such file" : concat(seen), kNotShared);
  }
  const fs::path virtual_file = temporary / kVirtualFile;
  write_virtual_file(virtual_file, metadata);
  sync_path(virtual_file);
  manifest.files.push_back({kVirtualFile, sum_of_file(virtual_file)});
  // This also flushes the folder.
  write_whole(temporary / kManifestFile, format_manifest(manifest));

  const CheckpointReader reader(temporary);
  if (reader.state().step != metadata.state.step ||
      reader.state().state_json != metadata.state.state_json ||
      reader.state().config_toml != metadata.state.config_toml)
    fail(virtual_file.string(), " does not read back as it was written");

  replace_folder(temporary, run_folder / step_folder_name(metadata.state.step),
                 run_folder / replaced_name(metadata.state.step, metadata.id));
  sync_path(run_folder);
}

CheckpointSave::CheckpointSave(const fs::path& run_folder, const TrainState& state,
                               const FlatLayout& layout, Range owned,
                               std::span<const OwnedArray> arrays, Communicator& communicator)
    : impl_(std::make_unique<Impl>()) {
  impl_->run_folder = run_folder;
  impl_->rank = communicator.rank();
  impl_->metadata.state = state;
  impl_->metadata.layout = layout;
  impl_->arrays.assign(arrays.begin(), arrays.end());
  for (const OwnedArray& array : arrays) impl_->metadata.groups.push_back(array.group);
  impl_->prepare(owned, communicator);
}

CheckpointSave::~CheckpointSave() = default;

void CheckpointSave::write() noexcept {
  try {
    impl_->sum = write_rank_file(impl_->temporary / rank_file_name(impl_->rank), impl_->metadata,
                                 impl_->rank, impl_->arrays);
    impl_->failure.clear();
  } catch (const std::exception& error) {
    impl_->failure = error.what();
  }
}

fs::path CheckpointSave::commit(Communicator& communicator) {
  try {
    together(communicator, [&] {
      if (!impl_->failure.empty()) throw Error(impl_->failure);
    });
    const std::vector<int64_t> sums =
        gather(communicator, std::vector{impl_->sum.size, static_cast<int64_t>(impl_->sum.xxh64)});
    together(communicator, [&] {
      if (impl_->rank == 0) impl_->finish(sums);
    });
  } catch (...) {
    impl_->discard();
    communicator.barrier();  // the folder must be gone before any rank reports the failure
    throw;
  }
  impl_->temporary_made = false;
  return impl_->run_folder / step_folder_name(impl_->metadata.state.step);
}

fs::path save_checkpoint(const fs::path& run_folder, const TrainState& state,
                         const FlatLayout& layout, Range owned, std::span<const OwnedArray> arrays,
                         Communicator& communicator) {
  CheckpointSave save(run_folder, state, layout, owned, arrays, communicator);
  save.write();
  return save.commit(communicator);
}

}  // namespace rodimus
