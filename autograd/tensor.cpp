#include "autograd/tensor.h"

#include "kernels/convert.h"
#include "kernels/memory.h"

namespace rodimus {

int64_t numel_of(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(count, dim, &count))
      fail("a tensor ", to_string(shape), " has more elements than 64 bits count");
  }
  return count;
}

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

Tensor Tensor::empty(Shape shape, DType dtype, Device device) {
  for (const int64_t dim : shape) CHECK(dim >= 0, "Tensor::empty: shape ", to_string(shape));
  Tensor x;
  x.shape_ = std::move(shape);
  x.dtype_ = dtype;
  x.device_ = device;
  if (x.numel() > INT64_MAX / static_cast<int64_t>(size_of(dtype)))
    fail("a tensor ", to_string(x.shape_), " of ", name_of(dtype), " has more than 2^63 bytes");
  x.storage_ = memory::allocate(static_cast<size_t>(x.bytes()), device);
  return x;
}

int64_t Tensor::dim(int axis) const {
  const int rank = static_cast<int>(shape_.size());
  const int index = axis < 0 ? axis + rank : axis;
  CHECK(index >= 0 && index < rank, "Tensor::dim: axis ", axis, " of ", to_string(shape_));
  return shape_[static_cast<size_t>(index)];
}

void* Tensor::checked_data(DType wanted) const {
  CHECK(defined(), "Tensor::data: the tensor is undefined");
  CHECK(wanted == dtype_, "Tensor::data: asked for ", name_of(wanted), ", the tensor holds ",
        name_of(dtype_));
  return storage_.get();
}

Tensor Tensor::view(Shape shape) const {
  CHECK(numel_of(shape) == numel(), "Tensor::view: ", to_string(shape_), " seen as ",
        to_string(shape));
  Tensor x = *this;
  x.shape_ = std::move(shape);
  return x;
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  CHECK(0 <= begin && begin <= end && end <= dim(0), "Tensor::rows: [", begin, ", ", end, ") of ",
        to_string(shape_));
  Shape shape = shape_;
  shape[0] = end - begin;
  return slice(begin * (numel() / std::max<int64_t>(dim(0), 1)), std::move(shape));
}

Tensor Tensor::slice(int64_t offset, Shape shape) const {
  CHECK(0 <= offset && offset + numel_of(shape) <= numel(), "Tensor::slice: ", to_string(shape),
        " at ", offset, " of ", to_string(shape_));
  Tensor x = *this;
  x.storage_ = {storage_, storage_.get() + offset * static_cast<int64_t>(size_of(dtype_))};
  x.shape_ = std::move(shape);
  return x;
}

Tensor empty_like(const Tensor& x) { return Tensor::empty(x.shape(), x.dtype(), x.device()); }

Tensor zeros(Exec& exec, Shape shape) {
  Tensor x = Tensor::empty(std::move(shape), DType::f32, device_of(exec));
  on_device(exec, [&](auto& backend) { fill(backend, x.data<float>(), 0, x.numel()); });
  return x;
}

Tensor convert_to(Exec& exec, const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  Tensor y = Tensor::empty(x.shape(), dtype, x.device());
  on_device(exec, [&](auto& backend) {
    if (dtype == DType::bf16) {
      convert(backend, y.data<bf16>(), x.data<float>(), x.numel());
    } else {
      convert(backend, y.data<float>(), x.data<bf16>(), x.numel());
    }
  });
  return y;
}

Tensor on_host(Exec& exec, const Tensor& x) {
  if (x.device() == Device::cpu) return x;
  if (x.device() == Device::dry) fail("on_host: a tensor of a dry run has no values");
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  on_device(exec, [&](auto& backend) { memory::download(backend, y.raw(), x.raw(), x.bytes()); });
  return y;
}

Tensor to_device(Exec& exec, std::span<const int32_t> values, Shape shape) {
  Tensor x = Tensor::empty(std::move(shape), DType::i32, device_of(exec));
  CHECK(x.numel() == static_cast<int64_t>(values.size()), "to_device: ", values.size(),
        " values for ", to_string(x.shape()));
  on_device(exec,
            [&](auto& backend) { memory::upload(backend, x.raw(), values.data(), x.bytes()); });
  return x;
}

void check_shape(const char* what, const Tensor& x, const Shape& expected) {
  CHECK(x.defined(), what, " is undefined, expected ", to_string(expected));
  CHECK(x.shape() == expected, what, " is ", to_string(x.shape()), ", expected ",
        to_string(expected));
}

}  // namespace rodimus
