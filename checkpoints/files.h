// The file-system operations of the commit protocol. Errors give the path, the system's reason, and
// what to do about a full or unwritable disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace rodimus {

struct FileSum {
  int64_t size = 0;
  uint64_t xxh64 = 0;
};

// Reads the whole file. Throws Error when it cannot.
FileSum sum_of_file(const std::filesystem::path& file);

// Opens the file first, because a network file system revalidates its attribute cache on open. -1
// when there is no such file.
int64_t size_of_file(const std::filesystem::path& file);

std::string read_text_file(const std::filesystem::path& file);

// Renames `from` to `to`. If `to` exists, the two swap names atomically where the file system can;
// where it cannot (NFS), `to` is first renamed to `aside`, and removed at the end. So at every
// moment either `to` or `aside` is complete.
void replace_folder(const std::filesystem::path& from, const std::filesystem::path& to,
                    const std::filesystem::path& aside);

// "cannot write <path>: No space left on device; free space or change run.output"
[[noreturn]] void fail_errno(std::string_view action, const std::filesystem::path& path, int error);

// What to do about errno `error` when writing; "" when nothing special is known.
std::string_view advice_for(int error);

}  // namespace rodimus
