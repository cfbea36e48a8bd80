// Dataset windows and document starts compared with a plain loop; the loader's order compared with
// the sampler.
#include "data/loader.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "data/shard_writer.h"
#include "tests/data/shard_files.h"

namespace rodimus {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

// A shard whose token at position i is base + i, with documents of the given sizes.
void counting_shard(const std::filesystem::path& prefix, int32_t base,
                    const std::vector<int>& sizes, const std::string& hash = "h") {
  ShardWriter writer(prefix, {.tokenizer_hash = hash, .vocab_size = 10000});
  for (const int size : sizes) {
    std::vector<int32_t> document(static_cast<size_t>(size));
    std::iota(document.begin(), document.end(), base);
    base += size;
    writer.add_document(document, size);
  }
  writer.close();
  writer.publish();
}

struct Corpus {
  TemporaryFolder folder;
  Corpus() {
    counting_shard(folder / "a", 1000, {5, 1, 9});      // 15 tokens: 3 windows of T = 4
    counting_shard(folder / "b", 2000, {2, 1});         // 3 tokens: none
    counting_shard(folder / "c", 3000, {1, 1, 1, 30});  // 33 tokens: 8 windows
  }
  Dataset open(int64_t seq_len = 4, int64_t vocab_size = 10000) const {
    return Dataset({.paths = {folder.path()}, .seq_len = seq_len, .vocab_size = vocab_size});
  }
};

TEST(Dataset, WindowsOverlapByOneAndStayInTheirShard) {
  const Corpus corpus;
  const Dataset dataset = corpus.open();
  EXPECT_EQ(dataset.tokens(), 51);
  EXPECT_EQ(dataset.tokenizer_hash(), "h");
  ASSERT_EQ(dataset.windows(), 11u);
  for (uint64_t w = 0; w < 11; ++w) {
    std::vector<int32_t> got(5), want(5);
    dataset.read(w, got.data(), nullptr);
    std::iota(want.begin(), want.end(),
              static_cast<int32_t>(w < 3 ? 1000 + 4 * w : 3000 + 4 * (w - 3)));
    EXPECT_EQ(got, want) << w;
  }
  EXPECT_THROW(dataset.read(11, nullptr, nullptr), Error);
}

TEST(Dataset, DocumentStarts) {
  const Corpus corpus;
  const Dataset dataset = corpus.open();
  // Documents of shard a begin at 0, 5, 6; of shard c at 0, 1, 2, 3.
  const std::map<uint64_t, std::vector<int32_t>> want = {{0, {0, 0, 0, 0}},
                                                         {1, {0, 1, 2, 2}},
                                                         {2, {0, 0, 0, 0}},
                                                         {3, {0, 1, 2, 3}},
                                                         {4, {0, 0, 0, 0}}};
  for (const auto& [w, starts] : want) {
    std::vector<int32_t> tokens(5), got(4, -1);
    dataset.read(w, tokens.data(), got.data());
    EXPECT_EQ(got, starts) << w;
  }
}

TEST(Dataset, DocumentStartsPassEmptyDocuments) {
  TemporaryFolder folder;
  testing::write_bytes(folder / "x.bin", testing::small_bin());
  testing::write_bytes(folder / "x.idx", testing::megatron_idx({.sizes = {3, 2, 2},
                                                                .pointers = {0, 6, 10},
                                                                .ends = {0, 0, 1, 1, 1, 3, 3}}));
  const Dataset dataset({.paths = {folder / "x"}, .seq_len = 6, .vocab_size = 100});
  std::vector<int32_t> tokens(7), starts(6);
  dataset.read(0, tokens.data(), starts.data());
  EXPECT_EQ(starts, (std::vector<int32_t>{0, 0, 0, 3, 3, 3}));
  EXPECT_EQ(dataset.tokenizer_hash(), "");
}

TEST(Dataset, DocumentsCoverAllTokens) {
  const Corpus corpus;
  const Dataset dataset = corpus.open();
  ASSERT_EQ(dataset.documents(), 9);
  std::vector<int32_t> all;
  for (int64_t d = 0; d < dataset.documents(); ++d) {
    const auto document = dataset.document(d);
    all.insert(all.end(), document.begin(), document.end());
  }
  EXPECT_EQ(all.size(), 51u);
  EXPECT_EQ(dataset.document(2).size(), 9u);
  EXPECT_EQ(dataset.document(2).front(), 1006);
  EXPECT_EQ(dataset.document(8).back(), 3032);
}

TEST(Dataset, MistakesAreErrors) {
  const Corpus corpus;
  expect_error([&] { corpus.open(/*seq_len=*/33); }, {"34 tokens", "lower seq_len", "51 tokens"});
  EXPECT_EQ(corpus.open(/*seq_len=*/32).windows(), 1u);
  expect_error([&] { corpus.open(4, /*vocab_size=*/9999); }, {"vocabulary of 10000"});
  counting_shard(corpus.folder / "d", 0, {3}, "other");
  expect_error([&] { corpus.open(); }, {"d.bin", "other", "a.bin"});
  expect_error([] { Dataset({.paths = {}, .seq_len = 4, .vocab_size = 9}); }, {"list of shards"});
}

// Every token except the first of a shard is predicted exactly once, even if a shard is shorter
// than a window or holds a single token.
TEST(Dataset, PiecesPredictEveryTokenOnce) {
  Corpus corpus;
  counting_shard(corpus.folder / "d", 4000, {1});
  for (const int64_t T : {1, 2, 4, 7, 32, 100}) {
    SCOPED_TRACE(T);
    const Dataset dataset({.paths = {corpus.folder.path()},
                           .seq_len = T,
                           .vocab_size = 10000,
                           .needs_window = false});
    std::vector<int32_t> seen, want;
    for (const Shard& shard : dataset.shards()) {
      std::vector<int32_t> tokens(static_cast<size_t>(shard.tokens()));
      shard.read(0, shard.tokens(), 10000, tokens.data());
      want.insert(want.end(), tokens.begin() + 1, tokens.end());
    }
    uint64_t whole = 0;
    for (int64_t i = 0; i < dataset.pieces(); ++i) {
      const Dataset::Piece piece = dataset.piece(i);
      ASSERT_GE(piece.predictions, 1);
      ASSERT_LE(piece.predictions, T);
      std::vector<int32_t> tokens(static_cast<size_t>(piece.predictions + 1));
      std::vector<int32_t> starts(static_cast<size_t>(piece.predictions));
      dataset.read(piece, tokens.data(), starts.data());
      if (piece.predictions == T) {
        std::vector<int32_t> window(tokens.size()), window_starts(starts.size());
        dataset.read(whole++, window.data(), window_starts.data());
        EXPECT_EQ(tokens, window);
        EXPECT_EQ(starts, window_starts);
      }
      seen.insert(seen.end(), tokens.begin() + 1, tokens.end());
    }
    EXPECT_EQ(seen, want);
    EXPECT_EQ(whole, dataset.windows());
    EXPECT_EQ(dataset.predictable(), static_cast<int64_t>(want.size()));
  }
}

TEST(Dataset, BadTokenIsFoundWhenReadWithoutVerification) {
  const Corpus corpus;
  const Dataset dataset(
      {.paths = {corpus.folder / "c"}, .seq_len = 4, .vocab_size = 3010, .verify = false});
  std::vector<int32_t> tokens(5);
  dataset.read(0, tokens.data(), nullptr);
  expect_error([&] { dataset.read(2, tokens.data(), nullptr); },
               {"c.bin", "token 3010", "position 10", "3010"});
}

LoaderConfig config_of(int64_t global, int64_t micro, int rank = 0, int world = 1) {
  return {
      .global_batch = global, .micro_batch = micro, .rank = rank, .world_size = world, .seed = 9};
}

// The rows of the next `steps` steps, keyed by global sample index.
std::map<uint64_t, std::vector<int32_t>> rows(Loader& loader, int steps) {
  std::map<uint64_t, std::vector<int32_t>> out;
  for (int64_t i = 0; i < steps * loader.micro_batches_per_step(); ++i) {
    const Batch batch = loader.next();
    for (int64_t b = 0; b < batch.B; ++b) {
      const auto begin = batch.inputs.begin() + b * batch.T;
      const bool fresh = out.emplace(batch.first_sample + static_cast<uint64_t>(b),
                                     std::vector<int32_t>(begin, begin + batch.T))
                             .second;
      EXPECT_TRUE(fresh) << "sample given twice";
    }
  }
  return out;
}

TEST(Loader, BatchesAreShiftedWindowsInSamplerOrder) {
  const Corpus corpus;
  const Dataset dataset = corpus.open();
  LoaderConfig config = config_of(4, 2);
  config.document_starts = true;
  Loader loader(dataset, config);
  const Sampler sampler(dataset.windows(), 9);
  for (uint64_t i = 0; i < 14; ++i) {  // 28 samples: over two epoch boundaries of 11
    const Batch batch = loader.next();
    ASSERT_EQ(batch.first_sample, 2 * i);
    ASSERT_EQ(batch.inputs.size(), 8u);
    for (uint64_t b = 0; b < 2; ++b) {
      std::vector<int32_t> window(5), starts(4);
      dataset.read(sampler.window(2 * i + b), window.data(), starts.data());
      for (size_t t = 0; t < 4; ++t) {
        EXPECT_EQ(batch.inputs[b * 4 + t], window[t]);
        EXPECT_EQ(batch.targets[b * 4 + t], window[t + 1]);
        EXPECT_EQ(batch.starts[b * 4 + t], starts[t]);
      }
    }
  }
  EXPECT_TRUE(Loader(dataset, config_of(4, 2)).next().starts.empty());
}

TEST(Loader, RanksPartitionEveryStepWhateverTheirNumber) {
  const Corpus corpus;
  const Dataset dataset = corpus.open();
  Loader single(dataset, config_of(12, 12));
  const auto want = rows(single, 5);
  ASSERT_EQ(want.size(), 60u);
  for (const auto& [world, micro] :
       std::vector<std::pair<int, int>>{{1, 1}, {2, 3}, {3, 2}, {12, 1}}) {
    std::map<uint64_t, std::vector<int32_t>> got;
    for (int rank = 0; rank < world; ++rank) {
      Loader loader(dataset, config_of(12, micro, rank, world));
      auto part = rows(loader, 5);
      EXPECT_EQ(part.size(), 60u / static_cast<size_t>(world));
      got.merge(part);
      EXPECT_TRUE(part.empty()) << "two ranks got the same sample";
    }
    EXPECT_EQ(got, want) << world << " ranks";
  }
}

TEST(Loader, ResumesAtItsPositionWithAnotherWorldSize) {
  const Corpus corpus;
  const Dataset dataset = corpus.open();
  Loader straight(dataset, config_of(6, 2));
  const auto want = rows(straight, 10);

  Loader first(dataset, config_of(6, 3));
  auto got = rows(first, 4);
  EXPECT_EQ(first.position(), 24u) << "prefetched batches must not count";
  first.next();  // half a step: does not count as taken
  EXPECT_EQ(first.position(), 24u);
  for (int rank = 0; rank < 2; ++rank) {
    Loader second(dataset, config_of(6, 1, rank, 2));
    second.seek(first.position());
    got.merge(rows(second, 6));
    EXPECT_EQ(second.position(), 60u);
  }
  EXPECT_EQ(got, want);
}

TEST(Loader, SeeksBackAndForth) {
  const Corpus corpus;
  const Dataset dataset = corpus.open();
  Loader loader(dataset, config_of(2, 2));
  const auto begin = rows(loader, 3);
  loader.seek(1000000000000);
  EXPECT_EQ(loader.next().first_sample, 1000000000000u);
  loader.seek(0);
  EXPECT_EQ(rows(loader, 3), begin);
  EXPECT_EQ(loader.position(), 6u);
}

TEST(Loader, ErrorsOfTheThreadReachTheCallerAndStay) {
  const Corpus corpus;
  const Dataset dataset(
      {.paths = {corpus.folder / "c"}, .seq_len = 4, .vocab_size = 3010, .verify = false});
  LoaderConfig config = config_of(1, 1);
  config.shuffle = false;  // windows 0 and 1 are valid
  Loader loader(dataset, config);
  loader.next();
  loader.next();
  for (int i = 0; i < 2; ++i) expect_error([&] { loader.next(); }, {"token 3010", "c.bin"});
  loader.seek(1);
  EXPECT_EQ(loader.next().inputs[0], 3004);
}

TEST(Loader, SizesThatDoNotDivideAreErrors) {
  const Corpus corpus;
  const Dataset dataset = corpus.open();
  expect_error([&] { Loader loader(dataset, config_of(10, 4)); }, {"10", "micro-batch 4", "= 4"});
  expect_error([&] { Loader loader(dataset, config_of(10, 2, 0, 3)); }, {"3 ranks", "= 6"});
  expect_error([&] { Loader loader(dataset, config_of(0, 1)); }, {"at least 1"});
  EXPECT_THROW(Loader(dataset, config_of(4, 1, 4, 4)), Error);
}

}  // namespace
}  // namespace rodimus
