// The start of a run reads all of its shards once, to find a flipped bit before it is trained on.
#pragma once

#include <filesystem>
#include <vector>

#include "data/shard.h"
#include "dist/communicator.h"

namespace rodimus {

struct VerifyOptions {
  bool read = true;                   // false: structure alone
  std::filesystem::path memory = {};  // what was verified before, see data/verified_files.h
  bool remember = false;              // rank 0 writes it there too
};

// Which of `workers` does each task, given their sizes: the largest first to whoever has least. The
// same on every rank.
std::vector<int> share_work(const std::vector<uint64_t>& sizes, int workers);

// Collective. Checks the structure of every shard, and reads what is not known to be whole:
// checksums where a NAME.json has them, else every token against `vocab_size`. The ranks share the
// work; where the machines see different files (copies on local disks), the ranks of each machine
// do. Shows progress on stderr and is stopped by signals; what was read before a stop or an error
// is remembered. Throws SharedError on the first damage, and when the ranks see different data.
void verify_shards(const std::vector<const Shard*>& shards, int64_t vocab_size,
                   const VerifyOptions& options, Communicator& communicator);

}  // namespace rodimus
