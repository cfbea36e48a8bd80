// From a configuration as written to everything that a Trainer needs: where the run starts, where
// its ranks compute, and what the configuration leaves open.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "train/config/resolve.h"
#include "train/placement.h"
#include "train/run_data.h"
#include "train/run_start.h"

namespace rodimus {

struct PreparedRun {
  RunStart start;
  std::unique_ptr<RunLock> lock;  // of the run folder, if it exists; on rank 0
  Place place;
  std::string place_text;  // "2 threads on the CPU, f32"
  ResolvedConfig config;
  DataSources sources;
  std::vector<std::string> notes;  // messages for the user, one line each
};

// Collective. Throws SharedError for the errors of find_start(), place_ranks(), open_sources() and
// resolve(), for changes that a resumed run does not allow (resume.h), and when a GPU run resumes
// on a machine without a GPU.
PreparedRun prepare_run(const Config& written, const StartOptions& options,
                        Communicator& communicator);

}  // namespace rodimus
