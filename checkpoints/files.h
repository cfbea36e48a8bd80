// What the commit protocol needs from the file system. Errors say the path, the reason of the
// system, and what to do about a full or unwritable disk.
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

// Opens the file to ask: a network file system revalidates its attribute cache on open. -1 when
// there is no such file.
int64_t size_of_file(const std::filesystem::path& file);

std::string read_text_file(const std::filesystem::path& file);

// Gives `from` the name `to`. When `to` exists the two swap names in one step where the file system
// can; where it cannot (NFS), `to` first becomes `aside`, and is removed at the end. So one of `to`
// and `aside` is complete at every moment.
void replace_folder(const std::filesystem::path& from, const std::filesystem::path& to,
                    const std::filesystem::path& aside);

// "cannot write <path>: No space left on device; free space or change run.output"
[[noreturn]] void fail_errno(std::string_view action, const std::filesystem::path& path, int error);

// What to do about errno `error` when writing; "" when nothing special is known.
std::string_view advice_for(int error);

}  // namespace rodimus
