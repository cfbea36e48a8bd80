// Gather is exact; the scatter-add adds in ascending order of rows, so f32 loops give the same
// bits.
#include "kernels/embedding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "kernels/reference/embedding.h"
#include "tests/support/device.h"
#include "tests/support/random.h"

namespace rodimus {
namespace {

using testing::Array;
using testing::backend;
using testing::Backend;
using testing::in;
using testing::kDevice;

struct Problem {
  int64_t rows, dim, vocab;
  std::vector<float> table, dy;
  std::vector<int32_t> ids;

  Problem(int64_t rows_, int64_t dim_, int64_t vocab_)
      : rows(rows_),
        dim(dim_),
        vocab(vocab_),
        table(testing::cast<float>(testing::normal(vocab * dim, 1))),
        dy(testing::cast<float>(testing::normal(rows * dim, 2))) {
    for (const double u : testing::uniform(rows, 3, 0, 1))
      ids.push_back(static_cast<int32_t>(u * static_cast<double>(vocab)));
  }
};

TEST(Embedding, ForwardAndBackwardBitForBit) {
  // The last two: several ranges of table rows on a GPU, one with all its members.
  for (const auto& [rows, dim, vocab] : {std::array<int64_t, 3>{1, 1, 1},
                                         {5, 7, 3},
                                         {300, 33, 11},
                                         {500, 129, 5},
                                         {0, 8, 4},
                                         {90, 4, 1000},
                                         {400, 8, 128}}) {
    for (const int threads : {1, 2, 3}) {
      if (kDevice == Device::cuda && threads > 1) continue;
      SCOPED_TRACE(::testing::Message() << rows << " x " << dim << " threads " << threads);
      const Problem p(rows, dim, vocab);
      Backend exec = backend(threads);
      Array<float> y(rows * dim);
      std::vector<float> want(p.dy.size());
      embedding_forward(exec, y.data(), in(p.table).data(), in(p.ids).data(), rows, dim, vocab);
      reference::embedding(want.data(), p.table.data(), p.ids.data(), rows, dim);
      EXPECT_EQ(y.host(), want);
      Array<float> dtable = p.table;  // accumulates
      std::vector<float> want_dtable = p.table;
      embedding_backward(exec, dtable.data(), in(p.dy).data(), in(p.ids).data(), rows, dim, vocab);
      reference::embedding_backward(want_dtable.data(), p.dy.data(), p.ids.data(), rows, dim);
      EXPECT_EQ(dtable.host(), want_dtable);
    }
  }
}

TEST(Embedding, NamesTheFirstBadId) {
  Problem p(40, 200, 9);
  for (const int32_t bad : {-1, 9}) {
    p.ids[17] = bad;
    p.ids[30] = -7;
    Backend exec = backend(2);
    Array<float> y(40 * 200), dtable = p.table;
    for (const bool backward : {false, true}) {
      try {
        if (backward)
          embedding_backward(exec, dtable.data(), in(p.dy).data(), in(p.ids).data(), 40, 200, 9);
        else
          embedding_forward(exec, y.data(), in(p.table).data(), in(p.ids).data(), 40, 200, 9);
        wait(exec);  // a GPU reports it when the host waits
        FAIL() << "accepted id " << bad;
      } catch (const Error& error) {
        const std::string text = error.what();
        EXPECT_NE(text.find("id " + std::to_string(bad) + " at position 17"), std::string::npos)
            << text;
        EXPECT_NE(text.find("[0, 9)"), std::string::npos) << text;
      }
    }
  }
}

#ifdef RODIMUS_TEST_CUDA
// The kernels run to completion: a bad id is ignored, and reported once by whichever call waits.
TEST(Embedding, BadIdsAreNone) {
  Problem p(40, 12, 9);
  p.ids[17] = 9;
  Backend exec = backend();
  Array<float> y(40 * 12), dtable = p.table;
  embedding_forward(exec, y.data(), in(p.table).data(), in(p.ids).data(), 40, 12, 9);
  embedding_backward(exec, dtable.data(), in(p.dy).data(), in(p.ids).data(), 40, 12, 9);
  EXPECT_THROW(y.host(), Error);
  p.ids[17] = 0;
  std::fill_n(p.dy.begin() + 17 * 12, 12, 0.0f);
  std::vector<float> want(40 * 12), want_dtable = p.table;
  reference::embedding(want.data(), p.table.data(), p.ids.data(), 40, 12);
  std::fill_n(want.begin() + 17 * 12, 12, 0.0f);
  reference::embedding_backward(want_dtable.data(), p.dy.data(), p.ids.data(), 40, 12);
  EXPECT_EQ(y.host(), want);
  EXPECT_EQ(dtable.host(), want_dtable);
}
#endif

}  // namespace
}  // namespace rodimus
