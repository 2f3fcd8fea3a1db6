// dequantize and read_strings.
#include "bind/bind.h"

#include <string>

#include "base/error.h"
#include "formats/decode.h"
#include "formats/strings.h"

namespace pocketlm {
namespace {

NumpyFloats dequantize_array(int type, const Array<uint8_t>& data, int64_t count) {
  const int64_t elements = block_elements(type);
  require(count >= 0 && count % elements == 0, "count must be a multiple of the block size");
  const size_t needed = tensor_bytes(type, count);
  if (data.size() < needed)
    throw FormatError(std::to_string(count) + " weights take " + std::to_string(needed) + " bytes, found " + std::to_string(data.size()));
  NumpyFloats out = new_floats(size_t(count));
  nb::gil_scoped_release release;
  dequantize(type, reinterpret_cast<const std::byte*>(data.data()), count, out.data());
  return out;
}

nb::tuple read_string_list(const Array<uint8_t>& buffer, uint64_t offset, uint64_t count) {
  const Strings strings = read_strings(std::as_bytes(span_of(buffer)), offset, count);
  nb::object list = nb::steal(PyList_New(Py_ssize_t(count)));
  if (!list.is_valid()) nb::raise_python_error();
  for (size_t i = 0; i < strings.values.size(); ++i) {
    const std::string_view value = strings.values[i];
    PyObject* text = PyUnicode_DecodeUTF8(value.data(), Py_ssize_t(value.size()), nullptr);
    if (text == nullptr) {
      PyErr_Clear();
      throw FormatError("string " + std::to_string(i) + " of " + std::to_string(count) + " is not UTF-8");
    }
    PyList_SetItem(list.ptr(), Py_ssize_t(i), text);  // takes the reference
  }
  return nb::make_tuple(list, strings.end);
}

}  // namespace

void bind_formats(nb::module_& m) {
  m.def("dequantize", &dequantize_array, nb::arg("type"), nb::arg("data"), nb::arg("count"));
  m.def("read_strings", &read_string_list, nb::arg("buffer"), nb::arg("offset"), nb::arg("count"));
}

}  // namespace pocketlm
