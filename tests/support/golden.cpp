#include "tests/support/golden.h"

#include <hdf5.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace rodimus::testing {
namespace {

hid_t checked(hid_t id, const std::string& what) {
  if (id < 0) throw std::runtime_error("golden: cannot open " + what);
  return id;
}

}  // namespace

std::filesystem::path golden_folder() {
  const char* folder = std::getenv("RODIMUS_GOLDEN");
  return folder != nullptr && *folder != '\0' ? folder : RODIMUS_SOURCE_DIR "/tests/golden";
}

std::vector<std::filesystem::path> golden_files(const std::string& sub, const std::string& prefix) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(golden_folder() / sub)) {
    if (entry.path().extension() == ".h5" && entry.path().filename().string().starts_with(prefix)) {
      files.push_back(entry.path());
    }
  }
  if (files.empty())
    throw std::runtime_error("golden: no " + prefix + "*.h5 in " +
                             (golden_folder() / sub).string());
  std::sort(files.begin(), files.end());
  return files;
}

std::string golden_name(const std::filesystem::path& file) { return file.stem().string(); }

Golden::Golden(const std::filesystem::path& file)
    : file_(checked(H5Fopen(file.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), file.string())) {}

Golden::~Golden() { H5Fclose(file_); }

bool Golden::has(const std::string& name) const {
  return H5Lexists(file_, name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<int64_t> Golden::shape(const std::string& name) const {
  const hid_t set = checked(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), name);
  const hid_t space = H5Dget_space(set);
  std::vector<hsize_t> dims(static_cast<size_t>(H5Sget_simple_extent_ndims(space)));
  H5Sget_simple_extent_dims(space, dims.data(), nullptr);
  H5Sclose(space);
  H5Dclose(set);
  return {dims.begin(), dims.end()};
}

std::vector<double> Golden::array(const std::string& name) const {
  size_t count = 1;
  for (const int64_t dim : shape(name)) count *= static_cast<size_t>(dim);
  std::vector<double> values(count);
  const hid_t set = checked(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), name);
  const herr_t status =
      H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  H5Dclose(set);
  if (status < 0) throw std::runtime_error("golden: cannot read " + name);
  return values;
}

std::vector<float> Golden::f32(const std::string& name) const {
  const auto values = array(name);
  return {values.begin(), values.end()};
}

std::vector<int32_t> Golden::i32(const std::string& name) const {
  const auto values = array(name);
  return {values.begin(), values.end()};
}

double Golden::scalar(const std::string& name) const { return array(name).at(0); }

bool Golden::has_attribute(const std::string& attribute) const {
  return H5Aexists(file_, attribute.c_str()) > 0;
}

double Golden::number(const std::string& attribute) const {
  const hid_t attr =
      checked(H5Aopen(file_, attribute.c_str(), H5P_DEFAULT), "attribute " + attribute);
  const hid_t type = H5Aget_type(attr);
  double value = 0;
  herr_t status = -1;
  if (H5Tget_class(type) == H5T_ENUM) {  // h5py writes a bool as an enum of int8
    int8_t flag = 0;
    status = H5Aread(attr, type, &flag);
    value = flag;
  } else {
    status = H5Aread(attr, H5T_NATIVE_DOUBLE, &value);
  }
  H5Tclose(type);
  H5Aclose(attr);
  if (status < 0) throw std::runtime_error("golden: attribute " + attribute + " is not a number");
  return value;
}

std::string Golden::text(const std::string& attribute) const {
  const hid_t attr =
      checked(H5Aopen(file_, attribute.c_str(), H5P_DEFAULT), "attribute " + attribute);
  const hid_t type = H5Aget_type(attr);
  std::string value;
  if (H5Tis_variable_str(type) > 0) {
    char* raw = nullptr;
    H5Aread(attr, type, &raw);
    value = raw;
    H5free_memory(raw);
  } else {
    value.resize(H5Tget_size(type));
    H5Aread(attr, type, value.data());
    value = value.c_str();
  }
  H5Tclose(type);
  H5Aclose(attr);
  return value;
}

std::vector<std::string> Golden::names(const std::string& group) const {
  std::vector<std::string> found;
  const hid_t id = checked(H5Gopen2(file_, group.c_str(), H5P_DEFAULT), group);
  H5Literate(
      id, H5_INDEX_NAME, H5_ITER_INC, nullptr,
      [](hid_t, const char* name, const H5L_info_t*, void* into) -> herr_t {
        static_cast<std::vector<std::string>*>(into)->emplace_back(name);
        return 0;
      },
      &found);
  H5Gclose(id);
  return found;
}

}  // namespace rodimus::testing
