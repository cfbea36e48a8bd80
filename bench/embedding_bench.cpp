// Embedding of (B,T) random tokens. Backward is counted as if all tokens were different: it reads
// the gradient, and reads and writes rows of the table.
#include "kernels/embedding.h"

#include "bench/bench.h"

namespace rodimus::bench {
namespace {

struct Problem {
  int64_t rows, dim, vocab;
  Array<float> table, y;
  Array<int32_t> ids;

  explicit Problem(const Shape& shape)
      : rows(shape.rows()),
        dim(shape.d),
        vocab(shape.vocab),
        table(normal<float>(vocab * dim, 1)),
        y(normal<float>(rows * dim, 2)),
        ids(rows) {
    const auto draws = testing::uniform(rows, 3, 0, static_cast<double>(vocab));
    for (int64_t i = 0; i < rows; ++i) ids[i] = static_cast<int32_t>(draws[static_cast<size_t>(i)]);
  }
  double elements() const { return static_cast<double>(rows * dim); }
};

void suite() {
  add("embedding_forward/f32", Limit::kBandwidth, [](const Shape& shape, Cpu exec) {
    const Problem p(shape);
    return Work{8 * p.elements(), [=]() mutable {
                  embedding_forward(exec, p.y.data(), p.table.data(), p.ids.data(), p.rows, p.dim,
                                    p.vocab);
                }};
  });
  add("embedding_backward/f32", Limit::kBandwidth, [](const Shape& shape, Cpu exec) {
    const Problem p(shape);
    return Work{12 * p.elements(), [=]() mutable {
                  embedding_backward(exec, p.table.data(), p.y.data(), p.ids.data(), p.rows, p.dim,
                                     p.vocab);
                }};
  });
}

}  // namespace
}  // namespace rodimus::bench

RODIMUS_BENCH_MAIN(rodimus::bench::suite)
