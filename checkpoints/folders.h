// The names in a run folder:
//   step_00001000                  committed
//   step_00001000.tmp-<id>         a save in progress, or the remains of a killed one
//   step_00001000.replaced-<id>    committed, waiting for the rename of its replacement (only on
//                                  file systems that cannot swap two names)
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace rodimus {

enum class FolderKind { committed, temporary, replaced };
struct StepFolder {
  int64_t step;
  FolderKind kind;
};

std::string step_folder_name(int64_t step);
std::string temporary_name(int64_t step, const std::string& id);
std::string replaced_name(int64_t step, const std::string& id);

// What a name in a run folder means; nullopt for unrelated names.
std::optional<StepFolder> parse_step_folder(std::string_view name);

}  // namespace rodimus
