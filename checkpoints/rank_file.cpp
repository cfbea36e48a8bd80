#include "checkpoints/rank_file.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/atomic_file.h"
#include "checkpoints/hdf5_output.h"
#include "checkpoints/layout.h"

namespace rodimus {
namespace {

constexpr int64_t kChunk = 1 << 18;  // elements

struct Piece {
  const TensorEntry* tensor;
  Range elements;
  int64_t flat_begin;
};

// The tensors (or parts of them) inside a range of the flat buffer, without gaps.
std::vector<Piece> pieces_in(const FlatLayout& layout, Range range) {
  std::vector<Piece> pieces;
  for (const TensorEntry& tensor : layout.tensors) {
    const Range elements = elements_in(tensor, range);
    if (elements.size() > 0) pieces.push_back({&tensor, elements, tensor.offset + elements.begin});
  }
  return pieces;
}

void write_piece(hid_t group, const Piece& piece, const float* data) {
  const int64_t n = piece.elements.size();
  // Chunks are equal because the last one is stored at full size: a short one would waste up to a
  // chunk.
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  const auto chunk = static_cast<hsize_t>((n + chunks - 1) / chunks);
  const hdf5::Handle properties = hdf5::dataset_properties();
  hdf5::checked(H5Pset_chunk(properties.id(), 1, &chunk), "H5Pset_chunk");
  hdf5::checked(H5Pset_fletcher32(properties.id()), "H5Pset_fletcher32");
  hdf5::checked(H5Pset_fill_time(properties.id(), H5D_FILL_TIME_NEVER), "H5Pset_fill_time");
  const hdf5::Handle space = hdf5::simple_space({{n}});
  const hdf5::Handle dataset(
      hdf5::checked(H5Dcreate2(group, piece.tensor->name.c_str(), H5T_IEEE_F32LE, space.id(),
                               H5P_DEFAULT, properties.id(), H5P_DEFAULT),
                    "cannot write ", piece.tensor->name),
      H5Dclose);
  hdf5::write_attribute(dataset.id(), "first_element", piece.elements.begin);
  hdf5::checked(H5Dwrite(dataset.id(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, data),
                "cannot write ", piece.tensor->name);
}

void write_all(const std::filesystem::path& path, const Metadata& metadata, int rank,
               std::span<const OwnedArray> arrays, const std::vector<Piece>& pieces) {
  hdf5::OutputFile file(path);
  hdf5::write_attribute(file.id(), "format_version", kFormatVersion);
  hdf5::write_attribute(file.id(), "id", metadata.id);
  hdf5::write_attribute(file.id(), "rank", rank);
  hdf5::write_attribute(file.id(), "world_size", metadata.world_size());
  hdf5::write_attribute(file.id(), "step", metadata.state.step);
  const int64_t begin = metadata.ranges[static_cast<size_t>(rank)].begin;
  for (const OwnedArray& array : arrays) {
    const hdf5::Handle group = hdf5::create_group(file.id(), array.group);
    for (const Piece& piece : pieces) {
      write_piece(group.id(), piece, array.data + (piece.flat_begin - begin));
      file.check();  // notices a full disk now, not gigabytes later
    }
  }
  file.close();
}

void compare_all(const std::filesystem::path& path, const Metadata& metadata, int rank,
                 std::span<const OwnedArray> arrays, const std::vector<Piece>& pieces) {
  const Range range = metadata.ranges[static_cast<size_t>(rank)];
  const hdf5::Handle file = open_rank_file(path, metadata, rank);
  std::vector<float> block;
  for (const OwnedArray& array : arrays) {
    for (const Piece& piece : pieces) {
      constexpr int64_t kBlock = 4 * kChunk;
      for (int64_t at = 0; at < piece.elements.size(); at += kBlock) {
        const int64_t count = std::min(kBlock, piece.elements.size() - at);
        const int64_t first = piece.elements.begin + at;
        block.resize(static_cast<size_t>(count));
        read_piece(file.id(), path, array.group, *piece.tensor, range, {first, first + count},
                   block.data());
        const float* want = array.data + (piece.flat_begin + at - range.begin);
        if (std::memcmp(block.data(), want, block.size() * sizeof(float)) != 0)
          fail(path.string(), ": ", array.group, "/", piece.tensor->name,
               " does not read back as it was written: the disk or the memory is faulty");
      }
    }
  }
}

}  // namespace

FileSum write_rank_file(const std::filesystem::path& path, const Metadata& metadata, int rank,
                        std::span<const OwnedArray> arrays) {
  const std::vector<Piece> pieces =
      pieces_in(metadata.layout, metadata.ranges[static_cast<size_t>(rank)]);
  try {
    const hdf5::Session session;
    write_all(path, metadata, rank, arrays, pieces);
    compare_all(path, metadata, rank, arrays, pieces);
  } catch (const Error& error) {
    const std::string text = error.what();
    if (text.find(path.string()) != text.npos) throw;
    fail(path.string(), ": ", text);
  }
  sync_path(path);
  return sum_of_file(path);
}

hdf5::Handle open_rank_file(const std::filesystem::path& path, const Metadata& metadata, int rank) {
  hdf5::Handle file = hdf5::open_file(path);
  const auto require = [&](const char* what, const auto& got, const auto& want) {
    if (got != want)
      fail(path.string(), " belongs to another save: its ", what, " is ", got, ", expected ", want);
  };
  require("format version", hdf5::read_integer(file.id(), "format_version"), kFormatVersion);
  require("id", hdf5::read_string(file.id(), "id"), metadata.id);
  require("rank", hdf5::read_integer(file.id(), "rank"), rank);
  require("world size", hdf5::read_integer(file.id(), "world_size"), metadata.world_size());
  require("step", hdf5::read_integer(file.id(), "step"), metadata.state.step);
  return file;
}

void read_piece(hid_t file, const std::filesystem::path& path, const std::string& group,
                const TensorEntry& tensor, Range rank_range, Range piece, float* out) {
  const std::string where = concat(path.string(), ": ", group, "/", tensor.name);
  const Range stored = elements_in(tensor, rank_range);
  const hdf5::Handle dataset(
      hdf5::checked(H5Dopen2(file, concat(group, "/", tensor.name).c_str(), H5P_DEFAULT), where),
      H5Dclose);
  if (hdf5::elements_of(dataset.id()) != stored.size())
    fail(where, " has ", hdf5::elements_of(dataset.id()), " elements, expected ", stored.size());
  const hdf5::Handle space(hdf5::checked(H5Dget_space(dataset.id()), where), H5Sclose);
  const auto start = static_cast<hsize_t>(piece.begin - stored.begin);
  const auto count = static_cast<hsize_t>(piece.size());
  hdf5::checked(H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, &start, nullptr, &count, nullptr),
                where);
  const hdf5::Handle memory = hdf5::simple_space({{piece.size()}});
  hdf5::checked(H5Dread(dataset.id(), H5T_NATIVE_FLOAT, memory.id(), space.id(), H5P_DEFAULT, out),
                where);
}

}  // namespace rodimus
