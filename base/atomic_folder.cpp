#include "base/atomic_folder.h"

#include <sys/stat.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/paths.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

bool is_mount_point(const fs::path& folder) {
  struct stat own = {}, above = {};
  return ::stat(folder.c_str(), &own) == 0 && ::stat(folder.parent_path().c_str(), &above) == 0 &&
         own.st_dev != above.st_dev;
}

}  // namespace

AtomicFolder::AtomicFolder(const fs::path& path)
    : path_(canonical_path(path)), temporary_(path_.native() + ".tmp") {
  std::error_code error;
  if (fs::is_symlink(path_, error)) fail(path.native(), " is a link to nothing; remove it");
  if (fs::exists(path_, error)) {
    if (!fs::is_directory(path_, error)) fail(path.native(), " is not a folder");
    if (!fs::is_empty(path_, error) || error)
      fail(path.native(), " is there and not empty; name another folder");
    // The finished folder takes its place, which this one cannot leave.
    if (is_mount_point(path_)) fail(path.native(), " is a mount point; name a folder inside it");
  }
  fs::create_directories(path_.parent_path(), error);
  if (error) fail(path_.parent_path().native(), ": cannot be created: ", error.message());
  const bool made = fs::create_directory(temporary_, error);
  if (error) fail(temporary_.native(), ": cannot be created: ", error.message());
  if (!made) {
    fail(temporary_.native(),
         " is there: another process is writing it, or was killed while it did; if none runs, "
         "remove it");
  }
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!published_) fs::remove_all(temporary_, ignored);
}

void AtomicFolder::publish() {
  sync_path(temporary_);
  std::error_code error;
  fs::rename(temporary_, path_, error);
  if (error)
    fail("cannot rename ", temporary_.native(), " to ", path_.native(), ": ", error.message());
  published_ = true;
  sync_path(path_.parent_path());
}

}  // namespace rodimus
