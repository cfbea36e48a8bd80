// Follows Model::losses and the cost that each op of autograd/ states beside its shape checks.
#include "layers/costs.h"

#include "autograd/ops.h"
#include "layers/blocks.h"

namespace rodimus {
namespace {

// All of one micro-batch; letters as in docs/tour.md.
class Costs {
 public:
  Costs(const ModelConfig& model, DType compute, int64_t B, int64_t T)
      : model_(model), c_(static_cast<double>(size_of(compute))), B_(B), T_(T), rows_(B * T) {}

  std::vector<OpCost> all() {
    const int64_t n = model_.n_layers;
    outside_blocks("embedding", {0, n_of(1) * 4 + 2 * stream()}, {0, n_of(1) * 4 + 2 * stream()});
    residual_norm(false, 1, 1);
    // The last one is the model's own.
    const int64_t norms = block_type(model_.block).reads("n_heads") ? 3 * n : n;
    residual_norm(true, norms, norms - 1);
    mixer(n);
    if (block_type(model_.block).reads("n_heads")) {
      attention(n);
      ffn(n);
    }
    head();
    return std::move(costs_);
  }

 private:
  double n_of(int64_t width) const {
    return static_cast<double>(rows_) * static_cast<double>(width);
  }
  double in_compute(int64_t width) const { return c_ * n_of(width); }  // bytes of (B, T, width)
  double stream() const { return 4 * n_of(model_.d_model); }

  void add(std::string_view name, double forward_bytes, double backward_bytes, int64_t calls = 1) {
    costs_.push_back({{name, {0, forward_bytes}, {0, backward_bytes}}, calls, calls});
  }

  void outside_blocks(std::string_view name, Cost forward, Cost backward) {
    costs_.push_back({{name, forward, backward}, 1, 0});
  }

  void linear(int64_t in, int64_t out, int64_t calls, bool ends_block = false) {
    const double flops = matmul_flops(rows_, out, in);
    const double weights = static_cast<double>(in) * static_cast<double>(out);
    const double moved = in_compute(in) + c_ * weights + in_compute(out);
    costs_.push_back(
        {{"linear", {flops, moved}, {2 * flops, moved + in_compute(in) + 4 * weights}, in, out},
         calls,
         ends_block ? 0 : calls});
  }

  void residual_norm(bool adds, int64_t calls, int64_t again) {
    const int64_t d = model_.d_model;
    const double moved = stream() + (adds ? in_compute(d) : 0) + in_compute(d) + 4 * n_of(1);
    add("residual_norm", moved + (adds ? stream() : 0), moved + (adds ? 2 : 1) * stream(), calls);
    costs_.back().again = again;
  }

  void mixer(int64_t calls) {
    const int64_t d = model_.d_model, e = model_.d_inner(), m = model_.mem_size,
                  r = model_.value_gate_rank();
    linear(d, e, 2 * calls);  // h and gate
    add("short_conv", 2 * in_compute(e), 3 * in_compute(e), calls);
    linear(e, 2 * m, 2 * calls);  // q and k, selection and temperature
    const double projected = 2 * in_compute(2 * m);
    const double gates = projected + 2 * in_compute(m) + 4 * n_of(m);
    add("ddts_gates", gates, gates + projected, calls);
    linear(e, r, calls);
    linear(r, e, calls);
    add("sigmoid_gate", 3 * in_compute(e), 5 * in_compute(e), calls);
    const double flops = static_cast<double>(B_) * ddts_flops(T_, m, e);
    const double inputs = 2 * in_compute(m) + in_compute(e) + 4 * n_of(m), o = in_compute(e);
    costs_.push_back({{"ddts", {flops, inputs + o}, {2 * flops, 2 * inputs + o}}, calls, calls});
    add("gated_norm", 4 * in_compute(e) + 4 * n_of(1), 7 * in_compute(e), calls);
    linear(e, d, calls, /*ends_block=*/!block_type(model_.block).reads("n_heads"));
  }

  void attention(int64_t calls) {
    const int64_t d = model_.d_model, D = model_.head_dim();
    const int64_t keys = model_.n_heads_k * D, values = model_.heads_v() * D;
    linear(d, d, 2 * calls);  // q and out
    linear(d, keys, calls);
    linear(d, values, calls);
    add("rotary", 2 * in_compute(d), 2 * in_compute(d), calls);
    add("rotary", 2 * in_compute(keys), 2 * in_compute(keys), calls);
    const double flops = static_cast<double>(B_) * ska_flops(T_, T_, d, model_.left());
    const double moved = 2 * in_compute(d) + in_compute(keys + values) + 4 * n_of(model_.n_heads);
    costs_.push_back({{"ska", {flops, moved}, {2 * flops, 2 * moved}}, calls, calls});
  }

  void ffn(int64_t calls) {
    const int64_t d = model_.d_model, f = model_.d_ff();
    linear(d, f, 2 * calls);
    add("swiglu", 3 * in_compute(f), 5 * in_compute(f), calls);
    linear(f, d, calls, /*ends_block=*/true);
  }

  void head() {
    const int64_t d = model_.d_model, vocab = model_.vocab_size;
    const double flops = matmul_flops(rows_, vocab, d);
    const double weights = static_cast<double>(vocab) * static_cast<double>(d);
    const double x = in_compute(d), targets_and_losses = 8 * n_of(1);
    outside_blocks("head_loss", {flops, x + c_ * weights + targets_and_losses},
                   {2 * flops, x + 4 * weights});
  }

  const ModelConfig& model_;
  double c_;  // bytes per element of the compute type
  int64_t B_, T_, rows_;
  std::vector<OpCost> costs_;
};

}  // namespace

std::vector<OpCost> micro_batch_costs(const ModelConfig& config, DType compute, int64_t B,
                                      int64_t T) {
  return Costs(config, compute, B, T).all();
}

}  // namespace rodimus
