// Reads a committed checkpoint from the rank files, not through the virtual datasets: those
// silently give fill values for a missing file.
#include <algorithm>
#include <unordered_map>

#include "base/checksum.h"
#include "checkpoints/checkpoint.h"
#include "checkpoints/files.h"
#include "checkpoints/layout.h"
#include "checkpoints/metadata.h"
#include "checkpoints/rank_file.h"
#include "checkpoints/virtual_file.h"

namespace rodimus {

namespace fs = std::filesystem;

struct CheckpointReader::Impl {
  fs::path folder;
  Manifest manifest;
  Metadata metadata;
  std::unordered_map<std::string, const TensorEntry*> by_name;
  // The rank file that was read last, kept open because neighbours in the flat buffer share it.
  // Used within a session.
  int open_rank = -1;
  hdf5::Handle open_file;

  explicit Impl(const fs::path& step_folder);
  ~Impl();
  fs::path rank_path(int rank) const { return folder / rank_file_name(rank); }
  void check_presence() const;
  void check_sum(const ManifestFile& file) const;
  void name_damaged_tensor(int rank);
  const TensorEntry& tensor(const std::string& name) const;
  void check_group(const std::string& group) const;
  void read_elements(const std::string& group, const TensorEntry& tensor, Range elements,
                     float* out);
};

CheckpointReader::Impl::Impl(const fs::path& step_folder) : folder(step_folder) {
  const fs::path manifest_path = folder / kManifestFile;
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored))
    fail(folder.string(), " is not a checkpoint: no such folder");
  if (size_of_file(manifest_path) < 0)
    fail(folder.string(), " is not a complete checkpoint: it has no ", kManifestFile);
  const std::string text = read_text_file(manifest_path);
  try {
    manifest = parse_manifest(text);
  } catch (const Error& error) {
    fail(manifest_path.string(), ": ", error.what());
  }
  check_presence();
  // HDF5 opens checkpoint.h5 only after its checksum has been verified.
  check_sum(manifest.files.back());
  const fs::path virtual_path = folder / kVirtualFile;
  try {
    metadata = read_virtual_file(virtual_path);
  } catch (const Error& error) {
    fail(virtual_path.string(), ": ", error.what());
  }
  if (metadata.id != manifest.id || metadata.world_size() != manifest.world_size ||
      metadata.state.step != manifest.step)
    fail(virtual_path.string(), " and ", kManifestFile, " belong to different saves");
  const hdf5::Session session;
  for (int rank = 0; rank < metadata.world_size(); ++rank) {
    try {
      open_rank_file(rank_path(rank), metadata, rank);
    } catch (const Error& error) {
      const std::string message = error.what(), name = rank_path(rank).string();
      fail(message.find(name) == message.npos ? name + ": " + message : message);
    }
  }
  for (const TensorEntry& entry : metadata.layout.tensors) by_name[entry.name] = &entry;
}

CheckpointReader::Impl::~Impl() {
  const hdf5::Session session;
  open_file = hdf5::Handle();
}

void CheckpointReader::Impl::check_presence() const {
  for (const ManifestFile& file : manifest.files) {
    const fs::path path = folder / file.name;
    const int64_t size = size_of_file(path);
    if (size < 0) fail(path.string(), " is missing: the checkpoint is damaged");
    if (size != file.sum.size)
      fail(path.string(), " has ", size, " bytes instead of ", file.sum.size,
           ": the checkpoint is damaged");
  }
}

void CheckpointReader::Impl::check_sum(const ManifestFile& file) const {
  const fs::path path = folder / file.name;
  const FileSum sum = sum_of_file(path);
  if (sum.size == file.sum.size && sum.xxh64 == file.sum.xxh64) return;
  fail(path.string(), " is damaged: its checksum is ", hex64(sum.xxh64), " instead of ",
       hex64(file.sum.xxh64));
}

// Throws Error naming the first tensor of the rank that cannot be read, if there is one.
void CheckpointReader::Impl::name_damaged_tensor(int rank) {
  const Range range = metadata.ranges[static_cast<size_t>(rank)];
  std::vector<float> values;
  for (const std::string& group : metadata.groups) {
    for (const TensorEntry& entry : metadata.layout.tensors) {
      const Range elements = elements_in(entry, range);
      values.resize(static_cast<size_t>(elements.size()));
      read_elements(group, entry, elements, values.data());
    }
  }
}

void CheckpointReader::Impl::check_group(const std::string& group) const {
  if (std::ranges::find(metadata.groups, group) == metadata.groups.end())
    fail(folder.string(), " has no group '", group, "'");
}

const TensorEntry& CheckpointReader::Impl::tensor(const std::string& name) const {
  const auto found = by_name.find(name);
  if (found == by_name.end()) fail(folder.string(), " has no tensor '", name, "'");
  return *found->second;
}

void CheckpointReader::Impl::read_elements(const std::string& group, const TensorEntry& entry,
                                           Range elements, float* out) {
  const hdf5::Session session;
  const Range flat = {entry.offset + elements.begin, entry.offset + elements.end};
  auto first = std::ranges::upper_bound(metadata.ranges, flat.begin, {}, &Range::end);
  for (; first != metadata.ranges.end() && first->begin < flat.end; ++first) {
    const Range piece = elements_in(entry, intersect(*first, flat));
    if (piece.size() == 0) continue;
    const auto rank = static_cast<int>(first - metadata.ranges.begin());
    const fs::path path = rank_path(rank);
    if (open_rank != rank) {
      open_rank = -1;
      open_file = open_rank_file(path, metadata, rank);
      open_rank = rank;
    }
    read_piece(open_file.id(), path, group, entry, *first, piece,
               out + (piece.begin - elements.begin));
  }
}

CheckpointReader::CheckpointReader(const fs::path& step_folder)
    : impl_(std::make_unique<Impl>(step_folder)) {}
CheckpointReader::~CheckpointReader() = default;
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;
CheckpointReader& CheckpointReader::operator=(CheckpointReader&&) noexcept = default;

const fs::path& CheckpointReader::folder() const { return impl_->folder; }
const TrainState& CheckpointReader::state() const { return impl_->metadata.state; }
const FlatLayout& CheckpointReader::layout() const { return impl_->metadata.layout; }
int CheckpointReader::world_size() const { return impl_->metadata.world_size(); }
const std::vector<std::string>& CheckpointReader::groups() const { return impl_->metadata.groups; }

void CheckpointReader::read(const std::string& group, const FlatLayout& layout, Range range,
                            float* out) const {
  CHECK(range.begin >= 0 && range.begin <= range.end && range.end <= layout.size, "read: range [",
        range.begin, ", ", range.end, ") of a buffer of ", layout.size);
  impl_->check_group(group);
  std::fill_n(out, range.size(), 0.0f);
  for (const TensorEntry& wanted : layout.tensors) {
    const Range elements = elements_in(wanted, range);
    if (elements.size() == 0) continue;
    const TensorEntry& stored = impl_->tensor(wanted.name);
    if (stored.shape != wanted.shape)
      fail(impl_->folder.string(), ": tensor '", wanted.name, "' is ", shape_text(stored.shape),
           ", asked for ", shape_text(wanted.shape));
    impl_->read_elements(group, stored, elements,
                         out + (wanted.offset + elements.begin - range.begin));
  }
}

void CheckpointReader::read(const std::string& group, Range range, float* out) const {
  read(group, impl_->metadata.layout, range, out);
}

std::vector<float> CheckpointReader::read_tensor(const std::string& group,
                                                 const std::string& name) const {
  impl_->check_group(group);
  const TensorEntry& tensor = impl_->tensor(name);
  std::vector<float> values(static_cast<size_t>(tensor.numel()));
  impl_->read_elements(group, tensor, {0, tensor.numel()}, values.data());
  return values;
}

void CheckpointReader::verify() const {
  // Opened again, because files may have changed since this reader opened them.
  Impl now(impl_->folder);
  for (const ManifestFile& file : now.manifest.files) {
    try {
      now.check_sum(file);
    } catch (const Error& error) {
      const auto rank = static_cast<int>(&file - now.manifest.files.data());
      try {
        if (rank < now.metadata.world_size()) now.name_damaged_tensor(rank);
      } catch (const Error& tensor_error) {
        fail(error.what(), "; ", tensor_error.what());
      }
      throw;
    }
  }
}

void require_same_tensors(const FlatLayout& model, const CheckpointReader& checkpoint) {
  const auto find = [](const FlatLayout& layout, const std::string& name) {
    return std::ranges::find(layout.tensors, name, &TensorEntry::name);
  };
  const FlatLayout& stored = checkpoint.layout();
  const std::string where = checkpoint.folder().string() + " was written by another model: ";
  const char* advice = "; resume with the configuration stored in it, or start a new run";
  for (const TensorEntry& tensor : model.tensors) {
    const auto found = find(stored, tensor.name);
    if (found == stored.tensors.end())
      fail(where, "it has no tensor '", tensor.name, "' ", shape_text(tensor.shape), advice);
    if (found->shape != tensor.shape)
      fail(where, "tensor '", tensor.name, "' is ", shape_text(found->shape), " there, ",
           shape_text(tensor.shape), " in this model", advice);
  }
  for (const TensorEntry& tensor : stored.tensors) {
    if (find(model, tensor.name) == model.tensors.end())
      fail(where, "it has the tensor '", tensor.name, "' ", shape_text(tensor.shape),
           ", which this model lacks", advice);
  }
}

}  // namespace rodimus
