#include "checkpoints/virtual_file.h"

#include <limits>
#include <vector>

#include "checkpoints/hdf5_output.h"
#include "checkpoints/hdf5_raii.h"
#include "checkpoints/layout.h"

namespace rodimus {
namespace {

constexpr const char* kMetadata = "metadata";
constexpr const char* kStateJson = "state_json";
constexpr const char* kConfigToml = "config_toml";

// Maps a box of the tensor; its elements start at element `first` of the piece that `rank` holds.
void map_box(hid_t properties, const std::string& source, const TensorEntry& tensor, int rank,
             int64_t piece_size, const Box& box, int64_t first) {
  const std::vector<hsize_t> start(box.start.begin(), box.start.end()),
      count(box.count.begin(), box.count.end());
  const hdf5::Handle whole = hdf5::simple_space(tensor.shape);
  hdf5::checked(
      H5Sselect_hyperslab(whole.id(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
      "H5Sselect_hyperslab");
  const hdf5::Handle piece = hdf5::simple_space({{piece_size}});
  const auto piece_start = static_cast<hsize_t>(first);
  const auto piece_count = static_cast<hsize_t>(box.numel());
  hdf5::checked(
      H5Sselect_hyperslab(piece.id(), H5S_SELECT_SET, &piece_start, nullptr, &piece_count, nullptr),
      "H5Sselect_hyperslab");
  hdf5::checked(H5Pset_virtual(properties, whole.id(), rank_file_name(rank).c_str(), source.c_str(),
                               piece.id()),
                "H5Pset_virtual");
}

void write_virtual_dataset(hid_t group, const std::string& group_name, const TensorEntry& tensor,
                           std::span<const Range> ranges) {
  const hdf5::Handle properties = hdf5::dataset_properties();
  const float missing = std::numeric_limits<float>::quiet_NaN();
  hdf5::checked(H5Pset_fill_value(properties.id(), H5T_NATIVE_FLOAT, &missing),
                "H5Pset_fill_value");
  const std::string source = concat("/", group_name, "/", tensor.name);
  for (size_t rank = 0; rank < ranges.size(); ++rank) {
    const Range piece = elements_in(tensor, ranges[rank]);
    int64_t first = 0;
    for (const Box& box : boxes_of(tensor.shape, piece)) {
      map_box(properties.id(), source, tensor, static_cast<int>(rank), piece.size(), box, first);
      first += box.numel();
    }
  }
  const hdf5::Handle dataset(hdf5::checked(H5Dcreate2(group, tensor.name.c_str(), H5T_IEEE_F32LE,
                                                      hdf5::simple_space(tensor.shape).id(),
                                                      H5P_DEFAULT, properties.id(), H5P_DEFAULT),
                                           "cannot write ", source),
                             H5Dclose);
}

}  // namespace

void write_virtual_file(const std::filesystem::path& path, const Metadata& metadata) {
  const hdf5::Session session;
  hdf5::OutputFile file(path);
  // Repeated from the metadata for people who use h5dump or HDFView.
  hdf5::write_attribute(file.id(), "format_version", kFormatVersion);
  hdf5::write_attribute(file.id(), "id", metadata.id);
  hdf5::write_attribute(file.id(), "step", metadata.state.step);
  hdf5::write_attribute(file.id(), "world_size", metadata.world_size());
  hdf5::write_text(file.id(), kMetadata, format_metadata(metadata));
  hdf5::write_text(file.id(), kStateJson, metadata.state.state_json);
  hdf5::write_text(file.id(), kConfigToml, metadata.state.config_toml);
  for (const std::string& name : metadata.groups) {
    const hdf5::Handle group = hdf5::create_group(file.id(), name);
    for (const TensorEntry& tensor : metadata.layout.tensors) {
      write_virtual_dataset(group.id(), name, tensor, metadata.ranges);
    }
  }
  file.close();
}

Metadata read_virtual_file(const std::filesystem::path& path) {
  const hdf5::Session session;
  const hdf5::Handle file = hdf5::open_file(path);
  Metadata metadata = parse_metadata(hdf5::read_text(file.id(), kMetadata));
  metadata.state.state_json = hdf5::read_text(file.id(), kStateJson);
  metadata.state.config_toml = hdf5::read_text(file.id(), kConfigToml);
  return metadata;
}

}  // namespace rodimus
