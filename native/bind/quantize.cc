// quantize: rows of weights into GGUF blocks.
#include "bind/bind.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>

#include "quantize/encode.h"

namespace pocketlm {
namespace {

using NumpyBytes = nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>, nb::c_contig>;

NumpyBytes quantize(int source_type, const Array<uint8_t>& data, int64_t rows, int64_t cols, int type,
                    std::string_view method, const std::optional<Array<float>>& importance, int threads) {
  EncodeJob job{source_type, std::as_bytes(span_of(data)), rows, cols, type, encode_method(method), {}, threads};
  if (importance) job.importance = span_of(*importance);
  const size_t bytes = encoded_bytes(job);
  auto out = std::make_unique_for_overwrite<uint8_t[]>(bytes + 1);
  {
    nb::gil_scoped_release release;
    encode(job, reinterpret_cast<std::byte*>(out.get()));
  }
  uint8_t* const written = out.get();
  nb::capsule owner(written, [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
  out.release();
  return NumpyBytes(written, {bytes}, owner);
}

}  // namespace

void bind_quantize(nb::module_& m) {
  m.def("quantize", &quantize, nb::arg("source_type"), nb::arg("data"), nb::arg("rows"), nb::arg("cols"), nb::arg("type"),
        nb::arg("method"), nb::arg("importance").none(), nb::arg("threads"));
}

}  // namespace pocketlm
