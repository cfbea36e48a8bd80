// A contiguous, row-major array. Copies share storage. It knows nothing of gradients and has no
// strides: a transpose is a GEMM flag or its own kernel.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/exec.h"

namespace rodimus {

using Shape = std::vector<int64_t>;
int64_t numel_of(const Shape& shape);       // throws Error if 64 bits are too few
std::string to_string(const Shape& shape);  // "(2, 3)"

class Tensor {
 public:
  Tensor() = default;
  // Uninitialised.
  static Tensor empty(Shape shape, DType dtype, Device device = Device::cpu);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int axis) const;  // negative counts from the end
  int64_t numel() const { return numel_of(shape_); }
  int64_t bytes() const { return numel() * static_cast<int64_t>(size_of(dtype_)); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }

  // Throws unless T matches dtype(). The address is on the tensor's device: the host may
  // dereference it only for CPU tensors, see on_host().
  template <class T>
  T* data() {
    return static_cast<T*>(checked_data(DTypeOf<T>::value));
  }
  template <class T>
  const T* data() const {
    return static_cast<const T*>(checked_data(DTypeOf<T>::value));
  }
  void* raw() { return storage_.get(); }
  const void* raw() const { return storage_.get(); }

  // The same bytes with another shape.
  Tensor view(Shape shape) const;
  // Rows [begin, end) of the first axis: the same bytes.
  Tensor rows(int64_t begin, int64_t end) const;
  // A view of the bytes from element `offset` on, with shape `shape`. Parameters are such views of
  // their flat buffer.
  Tensor slice(int64_t offset, Shape shape) const;

 private:
  void* checked_data(DType wanted) const;

  // Points at the first element; shares ownership of the whole block.
  std::shared_ptr<std::byte> storage_;
  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_ = Device::cpu;
};

// The data of an optional operand: null when x is undefined.
template <class T>
T* data_or_null(Tensor& x) {
  return x.defined() ? x.data<T>() : nullptr;
}
template <class T>
const T* data_or_null(const Tensor& x) {
  return x.defined() ? x.data<T>() : nullptr;
}

Tensor empty_like(const Tensor& x);
Tensor zeros(Exec& exec, Shape shape);  // f32
Tensor convert_to(Exec& exec, const Tensor& x,
                  DType dtype);  // x itself when it has that type already

// x in host memory: x itself if it is there already, else a copy, which the host waits for.
Tensor on_host(Exec& exec, const Tensor& x);
// `values` on the device of `exec`. Throws unless there is one per element of `shape`.
Tensor to_device(Exec& exec, std::span<const int32_t> values, Shape shape);

// Total bytes of the tensors (0 for undefined ones): the traffic of an op that reads or writes
// them.
template <class... Tensors>
double bytes_of(const Tensors&... tensors) {
  return (0.0 + ... + (tensors.defined() ? static_cast<double>(tensors.bytes()) : 0.0));
}

// Throws Error "<what> is (2, 3), expected (2, 4)".
void check_shape(const char* what, const Tensor& x, const Shape& expected);

}  // namespace rodimus
