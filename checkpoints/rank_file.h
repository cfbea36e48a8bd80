// rank_0007.h5: what one rank owns. For each group and tensor a one-dimensional dataset
// /<group>/<tensor> with the elements of that tensor which the rank holds, in chunks of at most
// 1 MiB with Fletcher32 checksums; the attribute first_element says where in the tensor they start.
#pragma once

#include <filesystem>
#include <span>

#include "checkpoints/hdf5_raii.h"
#include "checkpoints/metadata.h"

namespace rodimus {

// Writes the file, closes it, reads everything back and compares it bit for bit, flushes it to the
// disk. `arrays` hold metadata.ranges[rank]. Takes the HDF5 session itself.
FileSum write_rank_file(const std::filesystem::path& file, const Metadata& metadata, int rank,
                        std::span<const OwnedArray> arrays);

// Throws Error unless the file belongs to this save and rank. Within a session.
hdf5::Handle open_rank_file(const std::filesystem::path& file, const Metadata& metadata, int rank);

// Elements [piece.begin, piece.end) of `tensor` to `out`, all of them in the range of `rank`.
// Within a session.
void read_piece(hid_t file, const std::filesystem::path& path, const std::string& group,
                const TensorEntry& tensor, Range rank_range, Range piece, float* out);

}  // namespace rodimus
