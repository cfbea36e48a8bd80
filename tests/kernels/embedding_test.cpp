// Gather is exact; the scatter-add adds in ascending order of rows, so f32 loops give the same
// bits.
#include "kernels/embedding.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "kernels/reference/embedding.h"
#include "tests/support/random.h"

namespace rodimus {
namespace {

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
  for (const auto& [rows, dim, vocab] :
       {std::array<int64_t, 3>{1, 1, 1}, {5, 7, 3}, {300, 33, 11}, {1000, 129, 5}, {0, 8, 4}}) {
    for (const int threads : {1, 2, 3}) {
      SCOPED_TRACE(::testing::Message() << rows << " x " << dim << " threads " << threads);
      const Problem p(rows, dim, vocab);
      Cpu exec{threads};
      std::vector<float> y(p.dy.size()), want(p.dy.size());
      embedding_forward(exec, y.data(), p.table.data(), p.ids.data(), rows, dim, vocab);
      reference::embedding(want.data(), p.table.data(), p.ids.data(), rows, dim);
      EXPECT_EQ(y, want);
      std::vector<float> dtable = p.table, want_dtable = p.table;  // added to
      embedding_backward(exec, dtable.data(), p.dy.data(), p.ids.data(), rows, dim, vocab);
      reference::embedding_backward(want_dtable.data(), p.dy.data(), p.ids.data(), rows, dim);
      EXPECT_EQ(dtable, want_dtable);
    }
  }
}

TEST(Embedding, NamesTheFirstBadId) {
  Problem p(40, 2000, 9);
  for (const int32_t bad : {-1, 9}) {
    p.ids[17] = bad;
    p.ids[30] = -7;
    Cpu exec{2};
    std::vector<float> y(p.dy.size());
    for (const bool backward : {false, true}) {
      try {
        if (backward)
          embedding_backward(exec, p.table.data(), p.dy.data(), p.ids.data(), 40, 2000, 9);
        else
          embedding_forward(exec, y.data(), p.table.data(), p.ids.data(), 40, 2000, 9);
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

}  // namespace
}  // namespace rodimus
