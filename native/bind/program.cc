// Weight and Executor.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <functional>
#include <map>
#include <optional>
#include <string_view>

#include "bind/bind.h"
#include "pack/pack.h"
#include "program/executor.h"

namespace pocketlm {
namespace {

struct PyWeight {
  Weight matrix;
};

using OptionalFloats = std::optional<Array<float>>;
using Part = std::tuple<PyWeight, int, int64_t, OptionalFloats>;

Vector vector_of(const Array<float>& array) { return {array.data(), array.data() + array.size()}; }
Vector vector_of(const OptionalFloats& array) { return array ? vector_of(*array) : Vector{}; }

template <class Value>
Value choose(const char* what, std::string_view name, const std::map<std::string_view, Value>& values) {
  const auto found = values.find(name);
  if (found != values.end()) return found->second;
  std::string message = std::string(what) + " is '" + std::string(name) + "', expected one of:";
  for (const auto& [known, value] : values) message += " " + std::string(known);
  throw std::invalid_argument(message);
}

KvType kv_type(std::string_view name) { return choose<KvType>("kv", name, {{"f16", KvType::F16}, {"f32", KvType::F32}, {"q8", KvType::Q8}}); }

PyWeight pack(int type, int64_t rows, int64_t cols, const Array<uint8_t>& data,
              const std::optional<Array<int32_t>>& row_map, int threads, const std::optional<nb::callable>& read) {
  const auto bytes = std::as_bytes(span_of(data));
  const auto map = row_map ? span_of(*row_map) : std::span<const int32_t>{};
  std::function<void()> after;
  if (read)
    after = [&read] {
      nb::gil_scoped_acquire acquire;
      (*read)();
    };
  nb::gil_scoped_release release;
  return {pack_weight(type, rows, cols, bytes, map, threads, after)};
}

NumpyFloats weight_row(const PyWeight& weight, int64_t i) {
  require(i >= 0 && i < weight.matrix->rows && !weight.matrix->planned(), "no such row");
  NumpyFloats out = new_floats(size_t(weight.matrix->cols));
  unpack_row(*weight.matrix, i, out.data());
  return out;
}

void bind_weight(nb::module_& m) {
  nb::class_<PyWeight>(m, "Weight", "A matrix [rows, cols] packed for the kernels.")
      .def_static("pack", &pack, nb::arg("type"), nb::arg("rows"), nb::arg("cols"), nb::arg("data"),
                  nb::arg("row_map").none() = nb::none(), nb::arg("threads") = 1, nb::arg("read").none() = nb::none())
      .def_static("plan", [](int type, int64_t rows, int64_t cols) { return PyWeight{plan_weight(type, rows, cols)}; },
                  nb::arg("type"), nb::arg("rows"), nb::arg("cols"))
      .def_prop_ro("rows", [](const PyWeight& w) { return w.matrix->rows; })
      .def_prop_ro("cols", [](const PyWeight& w) { return w.matrix->cols; })
      .def_prop_ro("nbytes", [](const PyWeight& w) { return w.matrix->bytes(); })
      .def_prop_ro("layout", [](const PyWeight& w) { return std::string(layout_facts(w.matrix->layout).name); })
      .def("row", &weight_row, nb::arg("i"));
}

void add_linear(Executor& e, int src, const std::vector<Part>& parts, bool accumulate, std::string_view quantize) {
  std::vector<LinearPart> native;
  for (const auto& [weight, dst, offset, bias] : parts) native.push_back({weight.matrix, dst, offset, vector_of(bias)});
  e.program.linear(src, std::move(native), accumulate,
                   choose<Quantize>("quantize", quantize, {{"block", Quantize::Block}, {"fine", Quantize::Fine}, {"row", Quantize::Row}}));
}

void add_rope(Executor& e, int qkv, int rope, int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t rotary_dim,
              const OptionalFloats& q_norm, const OptionalFloats& k_norm, float eps) {
  e.program.rope({qkv, rope, heads, kv_heads, head_dim, rotary_dim, vector_of(q_norm), vector_of(k_norm), eps});
}

void add_gated(Executor& e, int dst, int src, std::string_view kind) {
  e.program.gated(dst, src, choose<Activation>("kind", kind, {{"silu", Activation::Silu},
                                                              {"gelu_tanh", Activation::GeluTanh},
                                                              {"relu2", Activation::Relu2}}));
}

using Pages = std::vector<int64_t>;

Capacity capacity_of(int64_t tokens, int64_t sequences, int64_t rows, const Pages& pages, std::string_view kv) {
  return {tokens, sequences, rows, pages, kv_type(kv)};
}

nb::dict requirements(const Executor& e, int64_t tokens, int64_t sequences, int64_t rows, const Pages& pages, std::string_view kv) {
  const Requirements bytes = e.requirements(capacity_of(tokens, sequences, rows, pages, kv));
  nb::dict out;
  out["weights"] = bytes.weights;
  out["kv"] = bytes.kv;
  out["workspace"] = bytes.workspace;
  return out;
}

NumpyFloats step(Executor& e, const Array<int32_t>& tokens, const Array<int32_t>& lengths, const Array<int32_t>& starts,
                 const Array3<int32_t>& block_tables, const Array<int32_t>& variants, const Array<int32_t>& rows, bool hidden, bool borrow) {
  require(block_tables.shape(0) == e.program.windows().size() && block_tables.shape(1) == lengths.size(),
          "block_tables are [groups, sequences, pages]");
  const Batch batch{span_of(tokens), span_of(lengths), span_of(starts), {block_tables.data(), block_tables.size()},
                    span_of(variants), span_of(rows), int64_t(block_tables.shape(2))};
  const size_t width = size_t(e.program.has_logits() ? e.output_width(hidden) : 0);
  NumpyFloats out = borrow ? NumpyFloats() : new_floats(rows.size(), width);
  std::span<const float> result;
  {
    nb::gil_scoped_release release;
    result = e.step(batch, hidden);
    if (!borrow && !result.empty()) std::memcpy(out.data(), result.data(), result.size_bytes());
  }
  // A view keeps the executor alive, and is only read.
  if (borrow) out = NumpyFloats(const_cast<float*>(result.data()), {rows.size(), width}, nb::find(e));
  return out;
}

void set_rows(Executor& e, int buffer, const Array2<float>& values) {
  const auto& buffers = e.program.buffers();
  require(buffer >= 0 && size_t(buffer) < buffers.size(), "no such buffer");
  require(int64_t(values.shape(1)) == buffers[size_t(buffer)].width, "the rows have another width than the buffer");
  e.set_rows(buffer, {values.data(), values.size()});
}

NumpyFloats rows(const Executor& e, int buffer, int64_t count) {
  const auto result = e.rows(buffer, count);
  NumpyFloats out = new_floats(size_t(count), size_t(e.program.buffers()[size_t(buffer)].width));
  std::memcpy(out.data(), result.data(), result.size_bytes());
  return out;
}

}  // namespace

void bind_program(nb::module_& m) {
  bind_weight(m);
  m.attr("PAGE_POSITIONS") = kPage;
  nb::class_<Executor>(m, "Executor", "A program with its weights, its KV cache and its threads.")
      .def(nb::init<int>(), nb::arg("threads"))
      .def("buffer", [](Executor& e, int64_t width) { return e.program.buffer(width); }, nb::arg("width"))
      .def("rope_table", [](Executor& e, const Array<float>& inv_freq, const OptionalFloats& inv_freq_long, float factor) {
             return e.program.rope_table(vector_of(inv_freq), vector_of(inv_freq_long), factor);
           }, nb::arg("inv_freq"), nb::arg("inv_freq_long").none(), nb::arg("attention_factor"))
      .def("input", [](Executor& e, int buffer) { e.program.input(buffer); }, nb::arg("buffer"))
      .def("embed", [](Executor& e, int dst, const PyWeight& weight, float scale) { e.program.embed(dst, weight.matrix, scale); },
           nb::arg("dst"), nb::arg("weight"), nb::arg("scale"))
      .def("rms_norm", [](Executor& e, int dst, int src, const Array<float>& weight, float eps) {
             e.program.rms_norm(dst, src, vector_of(weight), eps);
           }, nb::arg("dst"), nb::arg("src"), nb::arg("weight"), nb::arg("eps"))
      .def("linear", &add_linear, nb::arg("src"), nb::arg("parts"), nb::arg("accumulate"), nb::arg("quantize"))
      .def("rope", &add_rope, nb::arg("qkv"), nb::arg("rope"), nb::arg("heads"), nb::arg("kv_heads"), nb::arg("head_dim"),
           nb::arg("rotary_dim"), nb::arg("q_norm").none(), nb::arg("k_norm").none(), nb::arg("eps"))
      .def("attention", [](Executor& e, int dst, int qkv, int64_t heads, int64_t kv_heads, int64_t head_dim, float scale,
                           int64_t window) {
             e.program.attention({dst, qkv, 0, heads, kv_heads, head_dim, window, scale});
           }, nb::arg("dst"), nb::arg("qkv"), nb::arg("heads"), nb::arg("kv_heads"), nb::arg("head_dim"), nb::arg("scale"),
           nb::arg("window"))
      .def("gated", &add_gated, nb::arg("dst"), nb::arg("src"), nb::arg("kind"))
      .def("add", [](Executor& e, int dst, int src) { e.program.add(dst, src); }, nb::arg("dst"), nb::arg("src"))
      .def("select", [](Executor& e, int dst, int src) { e.program.select(dst, src); }, nb::arg("dst"), nb::arg("src"))
      .def("softcap", [](Executor& e, int buffer, float cap) { e.program.softcap(buffer, cap); }, nb::arg("buffer"), nb::arg("cap"))
      .def("finish", [](Executor& e, int hidden, int logits) { e.program.finish(hidden, logits); }, nb::arg("hidden"), nb::arg("logits"))
      .def("finish_stage", [](Executor& e) { e.program.finish_stage(); })
      .def_prop_ro("windows", [](const Executor& e) { return e.program.windows(); })
      .def("set_rows", &set_rows, nb::arg("buffer"), nb::arg("values"))
      .def("rows", &rows, nb::arg("buffer"), nb::arg("count"))
      .def("requirements", &requirements, nb::arg("max_tokens"), nb::arg("max_sequences"), nb::arg("max_rows"), nb::arg("pages"),
           nb::arg("kv"))
      .def("allocate", [](Executor& e, int64_t tokens, int64_t sequences, int64_t rows, const Pages& pages, std::string_view kv) {
             e.allocate(capacity_of(tokens, sequences, rows, pages, kv));
           }, nb::arg("max_tokens"), nb::arg("max_sequences"), nb::arg("max_rows"), nb::arg("pages"), nb::arg("kv"))
      .def("populate_cache", &Executor::populate_cache, nb::call_guard<nb::gil_scoped_release>())
      .def("step", &step, nb::arg("tokens"), nb::arg("lengths"), nb::arg("starts"), nb::arg("block_tables"), nb::arg("variants"),
           nb::arg("rows"), nb::arg("hidden") = false, nb::arg("borrow") = false);
}

}  // namespace pocketlm
