// checkpoint.h5: /<group>/<tensor> are virtual datasets that present each tensor whole and in its
// shape, from its pieces in the rank files next to it; a piece whose file is missing reads as NaN.
// /metadata (JSON), /state_json and /config_toml are texts.
#pragma once

#include <filesystem>

#include "checkpoints/metadata.h"

namespace rodimus {

// Both open their own HDF5 session.
void write_virtual_file(const std::filesystem::path& file, const Metadata& metadata);
Metadata read_virtual_file(const std::filesystem::path& file);

}  // namespace rodimus
