// Decisions that must be the same on all ranks, built from the collectives.
#include <exception>
#include <optional>
#include <vector>

#include "dist/communicator.h"

namespace rodimus {
namespace {

// The message of what `step` threw, or nothing.
std::optional<std::string> failure_of(const std::function<void()>& step) {
  try {
    step();
    return std::nullopt;
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "unknown exception";
  }
}

}  // namespace

std::unique_ptr<Communicator> Communicator::split(int color, int key) {
  together(*this, [&] {
    if (color < 0) fail("split: color = ", color, ", expected 0 or more");
  });
  return group_of(color, key);
}

std::string broadcast_text(Communicator& communicator, std::string text, int root) {
  auto size = narrow<int32_t>(text.size());
  communicator.broadcast(std::as_writable_bytes(std::span(&size, 1)), root);
  text.resize(static_cast<size_t>(size));
  communicator.broadcast(std::as_writable_bytes(std::span(text)), root);
  return text;
}

void together(Communicator& communicator, const std::function<void()>& step) {
  const int world_size = communicator.world_size();
  const std::optional<std::string> failure = failure_of(step);

  // The maximum of world_size - rank over the failing ranks belongs to the lowest of them.
  int64_t lowest = failure ? world_size - communicator.rank() : 0;
  communicator.all_reduce_max(std::span(&lowest, 1));
  if (lowest == 0) return;

  const int speaker = world_size - static_cast<int>(lowest);
  const std::string message = broadcast_text(communicator, failure.value_or(""), speaker);
  int64_t differs = failure != message ? 1 : 0;
  communicator.all_reduce_max(std::span(&differs, 1));
  if (differs == 0) throw SharedError(message);
  throw SharedError(concat("rank ", speaker, ": ", message));
}

void require_identical(Communicator& communicator, uint64_t hash, const std::string& what) {
  uint64_t hash_of_rank_0 = hash;
  communicator.broadcast(std::as_writable_bytes(std::span(&hash_of_rank_0, 1)), 0);

  std::vector<int64_t> differs(static_cast<size_t>(communicator.world_size()), 0);
  differs[static_cast<size_t>(communicator.rank())] = hash != hash_of_rank_0 ? 1 : 0;
  communicator.all_reduce_max(differs);

  // Even if a thousand ranks have a stale file, a few names are enough.
  constexpr size_t kNamed = 8;
  std::string ranks;
  size_t count = 0;
  for (size_t rank = 0; rank < differs.size(); ++rank) {
    if (differs[rank] == 0) continue;
    if (++count <= kNamed) ranks += (count > 1 ? ", " : "") + std::to_string(rank);
  }
  if (count == 0) return;
  if (count > kNamed) ranks += concat(" and ", count - kNamed, " more");
  throw SharedError(concat(what, ": rank", count > 1 ? "s " : " ", ranks,
                           count > 1 ? " differ" : " differs",
                           " from rank 0; all ranks must be given the same ", what));
}

}  // namespace rodimus
