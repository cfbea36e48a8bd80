#include "train/prepare_run.h"

#include <optional>

#include "base/checksum.h"
#include "base/error.h"
#include "kernels/device.h"
#include "train/resume.h"
#include "train/run_state.h"

namespace rodimus {
namespace {

// A run that used one kind of device does not silently continue on the other. `config`: result of
// continued().
void check_device(const Config& written, const Config& config,
                  const std::filesystem::path& checkpoint, std::vector<std::string>& notes) {
  if (written.run.device != "auto" || config.run.device == "auto") return;
  const Gpus gpus = find_gpus();
  if (config.run.device == "cuda" && gpus.count == 0) {
    fail("the run used a GPU (", checkpoint.string(), "), and there is none here: ", gpus.reason,
         "; set run.device=cpu to continue on the CPU, where rounding differs");
  }
  if (config.run.device == "cpu" && gpus.count > 0)
    notes.emplace_back("on the CPU as before; set run.device=cuda to continue on the GPU");
}

DataSources open_sources_of(const DataConfig& data) {
  if (data.train.empty())
    fail("data.train is empty: name the shards to train on, made by `rodimus tokenize`");
  return open_sources({.train = data.train,
                       .val = data.val,
                       .tokenizer = data.tokenizer,
                       .document_delimiter = data.document_delimiter});
}

}  // namespace

PreparedRun prepare_run(const Config& written, const StartOptions& options,
                        Communicator& communicator) {
  std::vector<std::string> notes;
  std::unique_ptr<RunLock> lock;
  RunStart start = agree_on_start(written.run.output, options, communicator, lock,
                                  [&](const std::string& line) { notes.push_back(line); });

  Config config = written;
  std::optional<Config> before;  // the configuration in the checkpoint, if the run resumes
  together(communicator, [&] {
    if (start.from != RunStart::From::resume) return;
    before = config_of(CheckpointReader(start.checkpoint));
    config = continued(written, *before, options.other_compute);
    check_device(written, config, start.checkpoint, notes);
  });
  Place place = place_ranks(config.run.device, config.run.threads, communicator);

  DataSources sources;
  std::optional<ResolvedConfig> resolved;
  together(communicator, [&] {
    sources = open_sources_of(config.data);
    Circumstances found = circumstances_of(place);
    found.vocab_size = sources.vocab_size();
    resolved = resolve(config, found);
    if (!before) return;
    for (std::string& line : changes_at_resume(*before, *resolved, options.other_compute))
      notes.push_back(std::move(line));
  });
  require_identical(communicator, xxh64(resolved->run.compute),
                    "type for run.compute = \"auto\": choose f32 or bf16");
  std::string place_text = concat(describe_device(config.run.device, place.exec), ", ",
                                  describe_compute(config.run.compute, resolved->device));
  return {std::move(start),     std::move(lock),    std::move(place), std::move(place_text),
          std::move(*resolved), std::move(sources), std::move(notes)};
}

}  // namespace rodimus
