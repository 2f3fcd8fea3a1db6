// pocketlm._native: the core as Python sees it. Every call that takes time releases the GIL.
#include "base/probe.h"
#include "bind/bind.h"

#ifdef __linux__
#include <malloc.h>
#endif
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "base/error.h"
#include "kernels/kernels.h"
#include "program/throughput.h"

namespace pocketlm {
namespace {

// The core's errors become the classes of pocketlm.errors.
void translate_errors() {
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    const auto raise = [](const char* name, const char* message) {
      PyErr_SetString(nb::module_::import_("pocketlm.errors").attr(name).ptr(), message);
    };
    try {
      std::rethrow_exception(p);
    } catch (const FormatError& e) {
      raise("ModelFileError", e.what());
    } catch (const CapacityError& e) {
      raise("CapacityError", e.what());
    }
  });
}

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (const Kernels* table : runnable_kernels()) names.emplace_back(table->name);
  return names;
}

Layout layout_of_kind(std::string_view kind) {
  require(kind == "int8" || kind == "f32", "multiply_add_rate knows the kinds int8 and f32");
  return kind == "int8" ? Layout::Q4_0 : Layout::F32;
}

// glibc keeps freed memory for later; what a closed model had should be there for other programs.
void return_freed_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace
}  // namespace pocketlm

NB_MODULE(_native, m) {
  using namespace pocketlm;
  translate_errors();
  m.def("isa", [] { return std::string(kernels().name); }, "Name of the instruction set in use.");
  m.def("isas", &isa_names, "Names of the instruction sets that can run here, scalar first.");
  m.def("select_isa", &select_kernels, nb::arg("name"), "Switches the instruction set in use.");
  m.def("return_freed_memory", &return_freed_memory, nb::call_guard<nb::gil_scoped_release>(),
        "Gives memory that was freed back to the system where the C library keeps it.");
  m.def("read_bandwidth", &read_bandwidth, nb::arg("threads"), nb::arg("bytes"), nb::arg("passes"),
        nb::call_guard<nb::gil_scoped_release>(), "Bytes per second that the threads read from memory, of each pass.");
  m.def("multiply_add_rate", [](const std::string& kind, int threads, double seconds, int passes) {
          return multiply_add_rate(layout_of_kind(kind), threads, seconds, passes);
        }, nb::arg("kind"), nb::arg("threads"), nb::arg("seconds"), nb::arg("passes"),
        nb::call_guard<nb::gil_scoped_release>(), "Multiply-adds per second of the linear kernels, of each pass.");
  bind_formats(m);
  bind_program(m);
  bind_quantize(m);
  bind_sampling(m);
  bind_text(m);
}
