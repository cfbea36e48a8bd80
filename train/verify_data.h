// Reads all shards once at the start of a run, to find a flipped bit before it is trained on.
#pragma once

#include <filesystem>
#include <vector>

#include "data/shard.h"
#include "dist/communicator.h"

namespace rodimus {

struct VerifyOptions {
  bool read = true;                   // false: structure only
  std::filesystem::path memory = {};  // record of earlier verification, see data/verified_files.h
  bool remember = false;              // rank 0 updates that record
};

// Which of `workers` does each task, given the sizes: the largest first, to the worker with the
// least work. The same on every rank.
std::vector<int> share_work(const std::vector<uint64_t>& sizes, int workers);

// Collective. Checks the structure of every shard, and reads what is not known to be intact: it
// compares checksums if there is a NAME.json, else every token with `vocab_size`. The ranks share
// the work; if machines see different files (copies on local disks), the ranks of each machine
// share theirs. Shows progress on stderr and stops on signals; what was read before a stop or an
// error is recorded. Throws SharedError on the first damage, and when the ranks see different data.
void verify_shards(const std::vector<const Shard*>& shards, int64_t vocab_size,
                   const VerifyOptions& options, Communicator& communicator);

}  // namespace rodimus
