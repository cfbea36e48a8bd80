// rank_0007.h5: the share of one rank. For each group and tensor it has a one-dimensional dataset
// /<group>/<tensor> with the elements of that tensor that the rank holds, in chunks of at most 1
// MiB with Fletcher32 checksums; the attribute first_element gives their start within the tensor.
#pragma once

#include <filesystem>
#include <span>

#include "checkpoints/hdf5_raii.h"
#include "checkpoints/metadata.h"

namespace rodimus {

// Writes the file, closes it, reads everything back to compare it bit for bit, and flushes it to
// disk. `arrays` hold metadata.ranges[rank]. Opens its own HDF5 session.
FileSum write_rank_file(const std::filesystem::path& file, const Metadata& metadata, int rank,
                        std::span<const OwnedArray> arrays);

// Throws Error unless the file belongs to this save and rank. Within a session.
hdf5::Handle open_rank_file(const std::filesystem::path& file, const Metadata& metadata, int rank);

// Reads elements [piece.begin, piece.end) of `tensor`, all in the range of `rank`, into `out`.
// Within a session.
void read_piece(hid_t file, const std::filesystem::path& path, const std::string& group,
                const TensorEntry& tensor, Range rank_range, Range piece, float* out);

}  // namespace rodimus
