// What the binding files share: how arrays cross, and one bind function per file.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstring>
#include <memory>
#include <span>

namespace pocketlm {

namespace nb = nanobind;

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Array2 = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Array3 = nb::ndarray<const T, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using NumpyFloats = nb::ndarray<nb::numpy, float, nb::c_contig>;

template <class T>
std::span<const T> span_of(const Array<T>& array) {
  return {array.data(), array.size()};
}

// A new numpy array that owns its memory; contents are not initialised.
inline NumpyFloats new_floats(size_t rows, size_t cols) {
  auto* data = new float[rows * cols + 1];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return NumpyFloats(data, {rows, cols}, owner);
}
inline NumpyFloats new_floats(size_t count) {
  auto* data = new float[count + 1];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return NumpyFloats(data, {count}, owner);
}

void bind_formats(nb::module_& m);
void bind_program(nb::module_& m);
void bind_quantize(nb::module_& m);
void bind_sampling(nb::module_& m);
void bind_text(nb::module_& m);

}  // namespace pocketlm
