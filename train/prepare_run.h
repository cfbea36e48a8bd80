// From a configuration as written to all that a Trainer needs: where the run starts, where its
// ranks compute, what is open in the configuration.
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
  std::unique_ptr<RunLock> lock;  // of the run folder where that exists, on rank 0
  Place place;
  std::string place_text;  // "2 threads on the CPU, f32"
  ResolvedConfig config;
  DataSources sources;
  std::vector<std::string> notes;  // what there is to say, one line each
};

// Collective. Throws SharedError: what find_start(), place_ranks(), open_sources() and resolve()
// throw, what must not change when a run resumes (resume.h), and a run of a GPU that resumes where
// there is none.
PreparedRun prepare_run(const Config& written, const StartOptions& options,
                        Communicator& communicator);

}  // namespace rodimus
