// The probes of the machine: they run on every instruction set that runs here, and refuse what makes no sense.
#include <cmath>
#include <stdexcept>

#include "base/probe.h"
#include "kernels/kernels.h"
#include "program/throughput.h"
#include "tests/check.h"

using namespace pocketlm;

namespace {

void multiply_adds_are_counted() {
  for (const Kernels* table : runnable_kernels()) {
    select_kernels(table->name);
    for (const Layout layout : {Layout::F32, Layout::Q4_0})
      for (const int threads : {1, 3}) {
        const auto rates = multiply_add_rate(layout, threads, 1e-4, 2);
        CHECK(!rates.empty() && rates.size() <= 2);
        for (const double rate : rates) CHECK(rate > 0 && std::isfinite(rate));
      }
  }
}

void bytes_are_read() {
  const auto rates = read_bandwidth(2, size_t{3} << 20, 2);
  CHECK(rates.size() == 2);
  for (const double rate : rates) CHECK(rate > 0 && std::isfinite(rate));
}

void nonsense_is_refused() {
  CHECK_THROWS(std::invalid_argument, multiply_add_rate(Layout::F32, 0, 0.01, 1));
  CHECK_THROWS(std::invalid_argument, multiply_add_rate(Layout::F32, 1, 0.01, 0));
  CHECK_THROWS(std::invalid_argument, multiply_add_rate(Layout::F32, 1, 0, 1));
  CHECK_THROWS(std::invalid_argument, multiply_add_rate(Layout::F32, 1, std::nan(""), 1));
  CHECK_THROWS(std::invalid_argument, multiply_add_rate(Layout::F32, 1, 2, 1));
  CHECK_THROWS(std::invalid_argument, read_bandwidth(1, 1, 1));
  CHECK_THROWS(std::invalid_argument, read_bandwidth(1, size_t{1} << 20, 0));
}

}  // namespace

int main() {
  multiply_adds_are_counted();
  bytes_are_read();
  nonsense_is_refused();
  return report();
}
