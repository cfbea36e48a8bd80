#include "checkpoints/hdf5_output.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <iterator>
#include <limits>

#include "checkpoints/files.h"
#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

namespace rodimus::hdf5 {
namespace {

// What the access properties pass to the driver.
struct DriverInfo {
  int* error;
};

struct DriverFile {
  H5FD_t base;  // must come first: HDF5 refers to the file by this
  int fd;
  int* error;
  haddr_t end_of_addresses, end_of_file;
};

DriverFile& driver_file(H5FD_t* file) { return *reinterpret_cast<DriverFile*>(file); }
const DriverFile& driver_file(const H5FD_t* file) {
  return *reinterpret_cast<const DriverFile*>(file);
}

void keep_errno(const DriverFile& file) {
  if (*file.error == 0) *file.error = errno;
}

H5FD_t* driver_open(const char* name, unsigned, hid_t access, haddr_t) {
  const auto* info = static_cast<const DriverInfo*>(H5Pget_driver_info(access));
  const int fd = ::open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) {
    *info->error = errno;
    return nullptr;
  }
  return &(new DriverFile{{}, fd, info->error, 0, 0})->base;
}

herr_t driver_close(H5FD_t* base) {
  DriverFile* file = &driver_file(base);
  if (::close(file->fd) != 0) keep_errno(*file);
  delete file;
  return 0;
}

// The same aggregation as the default driver's.
herr_t driver_query(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}

haddr_t driver_get_eoa(const H5FD_t* file, H5FD_mem_t) {
  return driver_file(file).end_of_addresses;
}

herr_t driver_set_eoa(H5FD_t* file, H5FD_mem_t, haddr_t end) {
  driver_file(file).end_of_addresses = end;
  return 0;
}

haddr_t driver_get_eof(const H5FD_t* file, H5FD_mem_t) { return driver_file(file).end_of_file; }

herr_t driver_read(H5FD_t* base, H5FD_mem_t, hid_t, haddr_t address, size_t size, void* buffer) {
  const DriverFile& file = driver_file(base);
  auto* bytes = static_cast<std::byte*>(buffer);
  while (size > 0) {
    const ssize_t got = ::pread(file.fd, bytes, size, static_cast<off_t>(address));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) keep_errno(file);
    if (got <= 0) break;
    bytes += got;
    address += static_cast<haddr_t>(got);
    size -= static_cast<size_t>(got);
  }
  std::fill_n(bytes, size, std::byte{0});  // beyond the end of the file, or lost
  return 0;
}

herr_t driver_write(H5FD_t* base, H5FD_mem_t, hid_t, haddr_t address, size_t size,
                    const void* buffer) {
  DriverFile& file = driver_file(base);
  file.end_of_file = std::max(file.end_of_file, address + size);
  const auto* bytes = static_cast<const std::byte*>(buffer);
  while (size > 0 && *file.error == 0) {
    const ssize_t written = ::pwrite(file.fd, bytes, size, static_cast<off_t>(address));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      keep_errno(file);
      break;
    }
    bytes += written;
    address += static_cast<haddr_t>(written);
    size -= static_cast<size_t>(written);
  }
  return 0;
}

herr_t driver_truncate(H5FD_t* base, hid_t, hbool_t) {
  DriverFile& file = driver_file(base);
  if (file.end_of_file == file.end_of_addresses) return 0;
  if (*file.error == 0 && ::ftruncate(file.fd, static_cast<off_t>(file.end_of_addresses)) != 0)
    keep_errno(file);
  file.end_of_file = file.end_of_addresses;
  return 0;
}

hid_t register_driver() {
  static H5FD_class_t driver = {};
#ifdef H5FD_CLASS_VERSION
  driver.version = H5FD_CLASS_VERSION;
  driver.value = static_cast<H5FD_class_value_t>(H5_VFD_RESERVED + 77);
#endif
  driver.name = "rodimus_output";
  driver.maxaddr = static_cast<haddr_t>(std::numeric_limits<off_t>::max());
  driver.fc_degree = H5F_CLOSE_STRONG;
  driver.fapl_size = sizeof(DriverInfo);
  driver.open = driver_open;
  driver.close = driver_close;
  driver.query = driver_query;
  driver.get_eoa = driver_get_eoa;
  driver.set_eoa = driver_set_eoa;
  driver.get_eof = driver_get_eof;
  driver.read = driver_read;
  driver.write = driver_write;
  driver.truncate = driver_truncate;
  const H5FD_mem_t one_list[] = H5FD_FLMAP_DICHOTOMY;
  std::copy(std::begin(one_list), std::end(one_list), driver.fl_map);
  return checked(H5FDregister(&driver), "H5FDregister");
}

Handle create(const std::filesystem::path& path, int* error) {
  static const hid_t driver = register_driver();
  const DriverInfo info = {error};
  const Handle access = file_access();
  checked(H5Pset_driver(access.id(), driver, &info), "H5Pset_driver");
  const hid_t id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.id());
  if (*error != 0) {
    H5Eclear2(H5E_DEFAULT);
    fail_errno("cannot write", path, *error);
  }
  return {checked(id, "cannot write ", path.string()), H5Fclose};
}

}  // namespace

OutputFile::OutputFile(const std::filesystem::path& path)
    : path_(path), file_(create(path, &error_)) {}

void OutputFile::check() const {
  if (error_ != 0) fail_errno("cannot write", path_, error_);
}

void OutputFile::close() {
  file_.close("cannot write ", path_.string());
  check();
}

}  // namespace rodimus::hdf5
