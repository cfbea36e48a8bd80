// Which checkpoints a run folder holds, which of them are intact, and which may be deleted.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "base/error.h"
#include "checkpoints/checkpoint.h"
#include "checkpoints/files.h"
#include "checkpoints/folders.h"

namespace rodimus {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step_";
constexpr size_t kDigits = 8;

template <class Visit>
void for_each_step_folder(const fs::path& run_folder, Visit visit) {
  std::error_code error;
  // Collected before any is visited, because visit() may remove or rename.
  std::vector<std::pair<fs::path, StepFolder>> found;
  for (auto entry = fs::directory_iterator(run_folder, error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::optional<StepFolder> folder = parse_step_folder(entry->path().filename().string());
    std::error_code ignored;
    if (folder && entry->is_directory(ignored)) found.emplace_back(entry->path(), *folder);
  }
  if (error && error != std::errc::no_such_file_or_directory)
    fail_errno("cannot list", run_folder, error.value());
  for (const auto& [path, folder] : found) visit(path, folder);
}

void remove_folder(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail_errno("cannot remove", path, error.value());
}

// A committed folder is renamed first: if the removal is killed half-way, the checkpoint must look
// absent, not damaged.
void remove_committed(const fs::path& path, int64_t step) {
  const fs::path temporary = path.parent_path() / temporary_name(step, "removed");
  remove_folder(temporary);
  std::error_code error;
  fs::rename(path, temporary, error);
  if (error) fail_errno("cannot remove", path, error.value());
  remove_folder(temporary);
}

}  // namespace

std::string step_folder_name(int64_t step) { return fmt::format("{}{:08d}", kPrefix, step); }
std::string temporary_name(int64_t step, const std::string& id) {
  return step_folder_name(step) + ".tmp-" + id;
}
std::string replaced_name(int64_t step, const std::string& id) {
  return step_folder_name(step) + ".replaced-" + id;
}

std::optional<StepFolder> parse_step_folder(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
  int64_t step = 0;
  const auto parsed = std::from_chars(name.data(), name.data() + digits, step);
  // Only steps that need more than eight digits may have more: each step has exactly one name.
  if (digits < kDigits || (digits > kDigits && name[0] == '0') || parsed.ec != std::errc())
    return std::nullopt;
  const std::string_view suffix = name.substr(digits);
  if (suffix.empty()) return StepFolder{step, FolderKind::committed};
  if (suffix.starts_with(".tmp-")) return StepFolder{step, FolderKind::temporary};
  if (suffix.starts_with(".replaced-")) return StepFolder{step, FolderKind::replaced};
  return std::nullopt;
}

std::vector<fs::path> list_checkpoints(const fs::path& run_folder) {
  std::map<int64_t, fs::path> by_step;
  for_each_step_folder(run_folder, [&](const fs::path& path, StepFolder folder) {
    if (folder.kind == FolderKind::committed) by_step[folder.step] = path;
    if (folder.kind == FolderKind::replaced) by_step.try_emplace(folder.step, path);
  });
  std::vector<fs::path> paths;
  for (const auto& [step, path] : by_step) paths.push_back(path);
  return paths;
}

std::optional<fs::path> newest_sound_checkpoint(const fs::path& run_folder,
                                                std::vector<std::string>* problems) {
  std::vector<fs::path> folders = list_checkpoints(run_folder);
  std::reverse(folders.begin(), folders.end());
  for (const fs::path& folder : folders) {
    try {
      CheckpointReader(folder).verify();
      return folder;
    } catch (const Error& error) {
      if (problems != nullptr) problems->push_back(error.what());
    }
  }
  return std::nullopt;
}

void prune_checkpoints(const fs::path& run_folder, int64_t keep_last, int64_t keep_every,
                       const fs::path& keep) {
  CHECK(keep_last >= 0 && keep_every >= 0, "prune_checkpoints: keep_last = ", keep_last,
        ", keep_every = ", keep_every, ", need 0 or more");
  for_each_step_folder(run_folder, [&](const fs::path& path, StepFolder folder) {
    if (folder.kind == FolderKind::temporary) remove_folder(path);
    if (folder.kind != FolderKind::replaced) return;
    // Either the replacement was never renamed, or the old folder was not removed in time.
    const fs::path committed = run_folder / step_folder_name(folder.step);
    std::error_code error;
    if (fs::exists(committed, error)) return remove_folder(path);
    fs::rename(path, committed, error);
    if (error) fail_errno("cannot rename to", committed, error.value());
  });
  if (keep_last == 0) return;

  std::vector<std::pair<int64_t, fs::path>> committed;
  for_each_step_folder(run_folder, [&](const fs::path& path, StepFolder folder) {
    if (folder.kind == FolderKind::committed) committed.emplace_back(folder.step, path);
  });
  std::sort(committed.begin(), committed.end());
  const auto count = static_cast<int64_t>(committed.size());
  for (int64_t i = 0; i < count - keep_last; ++i) {
    const auto& [step, path] = committed[static_cast<size_t>(i)];
    if (keep_every > 0 && step % keep_every == 0) continue;
    std::error_code error;
    if (!keep.empty() && fs::equivalent(path, keep, error)) continue;
    remove_committed(path, step);
  }
}

}  // namespace rodimus
