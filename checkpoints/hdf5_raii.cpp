#include "checkpoints/hdf5_raii.h"

#include <cstring>
#include <string_view>
#include <vector>

#include "checkpoints/files.h"

namespace rodimus::hdf5 {
namespace {

std::mutex& mutex() {
  static auto* instance = new std::mutex;  // outlives every static reader
  return *instance;
}

// Called for each entry of the error stack, innermost first; keeps the first description that is
// not empty.
herr_t take_reason(unsigned, const H5E_error2_t* error, void* reason) {
  auto& text = *static_cast<std::string*>(reason);
  if (text.empty() && error->desc != nullptr) text = error->desc;
  return 0;
}

// The drivers put "..., errno = 28, error message = '...', ..." into their descriptions.
int errno_in(std::string_view reason) {
  constexpr std::string_view kKey = "errno = ";
  const size_t at = reason.find(kKey);
  return at == reason.npos ? 0 : std::atoi(std::string(reason.substr(at + kKey.size())).c_str());
}

Handle text_type() {
  Handle type(checked(H5Tcopy(H5T_C_S1), "H5Tcopy"), H5Tclose);
  checked(H5Tset_size(type.id(), H5T_VARIABLE), "H5Tset_size");
  checked(H5Tset_cset(type.id(), H5T_CSET_UTF8), "H5Tset_cset");
  return type;
}

Handle fixed_text_type(size_t size) {
  Handle type(checked(H5Tcopy(H5T_C_S1), "H5Tcopy"), H5Tclose);
  checked(H5Tset_size(type.id(), size), "H5Tset_size");
  checked(H5Tset_cset(type.id(), H5T_CSET_UTF8), "H5Tset_cset");
  checked(H5Tset_strpad(type.id(), H5T_STR_NULLPAD), "H5Tset_strpad");
  return type;
}

Handle scalar_space() { return {checked(H5Screate(H5S_SCALAR), "H5Screate"), H5Sclose}; }

Handle create_attribute(hid_t object, const char* name, hid_t type) {
  return {checked(H5Acreate2(object, name, type, scalar_space().id(), H5P_DEFAULT, H5P_DEFAULT),
                  "cannot write attribute ", name),
          H5Aclose};
}

Handle open_attribute(hid_t object, const char* name) {
  Handle attribute(checked(H5Aopen(object, name, H5P_DEFAULT), "attribute ", name), H5Aclose);
  const Handle space(checked(H5Aget_space(attribute.id()), "attribute ", name), H5Sclose);
  if (H5Sget_simple_extent_npoints(space.id()) != 1)
    fail("attribute ", name, " has more than one value");
  return attribute;
}

}  // namespace

Session::Session() : lock_(mutex()) {
  // This setting is per thread in a thread-safe build of the library, so it is set here and not
  // once.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

void fail_hdf5(const std::string& what) {
  std::string reason;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_reason, &reason);
  H5Eclear2(H5E_DEFAULT);
  const int error = errno_in(reason);
  if (error != 0) fail(what, ": ", std::strerror(error), advice_for(error));
  fail(what, ": ", reason.empty() ? "HDF5 gives no reason" : reason);
}

Handle file_access() {
  Handle access(checked(H5Pcreate(H5P_FILE_ACCESS), "H5Pcreate"), H5Pclose);
  checked(H5Pset_libver_bounds(access.id(), H5F_LIBVER_V110, H5F_LIBVER_V110),
          "H5Pset_libver_bounds");
  checked(H5Pset_file_locking(access.id(), false, true), "H5Pset_file_locking");
  checked(H5Pset_fclose_degree(access.id(), H5F_CLOSE_STRONG), "H5Pset_fclose_degree");
  return access;
}

Handle open_file(const std::filesystem::path& path) {
  return {checked(H5Fopen(path.c_str(), H5F_ACC_RDONLY, file_access().id()), "cannot read ",
                  path.string()),
          H5Fclose};
}

Handle create_group(hid_t parent, const std::string& name) {
  return {checked(H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                  "cannot write group ", name),
          H5Gclose};
}

Handle open_dataset(hid_t parent, const std::string& name) {
  return {checked(H5Dopen2(parent, name.c_str(), H5P_DEFAULT), name), H5Dclose};
}

Handle simple_space(std::span<const int64_t> shape) {
  std::vector<hsize_t> dims(shape.begin(), shape.end());
  return {checked(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr),
                  "H5Screate_simple"),
          H5Sclose};
}

Handle dataset_properties() {
  return {checked(H5Pcreate(H5P_DATASET_CREATE), "H5Pcreate"), H5Pclose};
}

int64_t elements_of(hid_t dataset) {
  const Handle space(checked(H5Dget_space(dataset), "H5Dget_space"), H5Sclose);
  return checked(H5Sget_simple_extent_npoints(space.id()), "H5Sget_simple_extent_npoints");
}

void write_text(hid_t parent, const std::string& name, const std::string& text) {
  CHECK(text.find('\0') == text.npos, name, ": the text holds a zero byte");
  const Handle type = text_type();
  const Handle dataset(checked(H5Dcreate2(parent, name.c_str(), type.id(), scalar_space().id(),
                                          H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                               "cannot write ", name),
                       H5Dclose);
  const char* value = text.c_str();
  checked(H5Dwrite(dataset.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, &value), "cannot write ",
          name);
}

std::string read_text(hid_t parent, const std::string& name) {
  const Handle dataset = open_dataset(parent, name);
  if (elements_of(dataset.id()) != 1) fail(name, ": expected one string");
  char* value = nullptr;
  checked(H5Dread(dataset.id(), text_type().id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, &value), name);
  std::string text = value != nullptr ? value : "";
  H5free_memory(value);
  return text;
}

void write_attribute(hid_t object, const char* name, int64_t value) {
  const Handle attribute = create_attribute(object, name, H5T_STD_I64LE);
  checked(H5Awrite(attribute.id(), H5T_NATIVE_INT64, &value), "cannot write attribute ", name);
}

void write_attribute(hid_t object, const char* name, const std::string& text) {
  CHECK(!text.empty(), name, ": an empty string has no fixed length");
  const Handle type = fixed_text_type(text.size());
  const Handle attribute = create_attribute(object, name, type.id());
  checked(H5Awrite(attribute.id(), type.id(), text.data()), "cannot write attribute ", name);
}

int64_t read_integer(hid_t object, const char* name) {
  int64_t value = 0;
  checked(H5Aread(open_attribute(object, name).id(), H5T_NATIVE_INT64, &value), "attribute ", name);
  return value;
}

std::string read_string(hid_t object, const char* name) {
  const Handle attribute = open_attribute(object, name);
  const Handle type(checked(H5Aget_type(attribute.id()), "attribute ", name), H5Tclose);
  if (H5Tget_class(type.id()) != H5T_STRING || H5Tis_variable_str(type.id()) != 0)
    fail("attribute ", name, " is not a string of fixed length");
  std::string text(H5Tget_size(type.id()), '\0');
  checked(H5Aread(attribute.id(), type.id(), text.data()), "attribute ", name);
  return text;
}

}  // namespace rodimus::hdf5
