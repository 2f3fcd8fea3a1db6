#include "program/throughput.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/error.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace pocketlm {
namespace {

// Small enough for the second-level cache of a phone's core: 72 KiB of 4-bit weights (256 KiB as floats) and 64 KiB of
// activations (128 KiB as floats).
constexpr int64_t kRows = 256, kCols = 512, kTokens = 64;
constexpr double kMultiplyAdds = double(kRows) * double(kCols) * double(kTokens);

struct Operands {
  PackedMatrix weights;
  Buffer activations;
  size_t stride;
};

// The bytes 0x3c are the half 1.06 and the float 0.0115: nothing here is a denormal, which some CPUs are slow with.
Operands operands(const Kernels& table, Layout layout) {
  const size_t stride = is_float(layout) ? size_t(kCols) * sizeof(float) : quantized_row_bytes(kCols);
  Operands made{make_packed(layout, kRows, kCols), Buffer(stride * size_t(kTokens)), stride};
  std::memset(made.weights.data.data(), 0x3c, made.weights.data.size());
  std::vector<float> row(kCols);
  for (int64_t i = 0; i < kCols; ++i) row[size_t(i)] = float(i % 7 - 3);
  for (int64_t token = 0; token < kTokens; ++token) {
    std::byte* to = made.activations.data() + size_t(token) * stride;
    if (is_float(layout)) std::memcpy(to, row.data(), stride);
    else table.quantize_row(row.data(), kCols, false, to);
  }
  return made;
}

}  // namespace

std::vector<double> multiply_add_rate(Layout layout, int threads, double seconds, int passes) {
  require(passes >= 1 && seconds > 0 && seconds <= 1,
          "multiply_add_rate wants at least 1 pass, and at most 1 second for each");
  const Kernels& table = kernels();
  const Operands from = operands(table, layout);
  ThreadPool pool(threads);
  std::vector<std::vector<float>> out(size_t(threads), std::vector<float>(size_t(kRows * kTokens)));
  // Whole products, so that a slow core of a mixed CPU does fewer of them.
  const auto time = [&](int64_t products) {
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](Worker& worker) {
      worker.each(products, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          table.matmul[int(layout)](from.weights, 0, from.weights.panels, from.activations.data(), from.stride, kTokens,
                                    out[size_t(worker.index())].data(), kRows, nullptr, false);
      });
    });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  time(threads);  // fills the caches
  const double once = std::max(time(threads), 1e-6);
  const auto products = int64_t(std::max(1.0, seconds / once)) * threads;
  std::vector<double> rates;
  double left = 2 * seconds * passes;
  for (int pass = 0; pass < passes && left > 0; ++pass) {
    const double taken = std::max(time(products), 1e-9);
    rates.push_back(kMultiplyAdds * double(products) / taken);
    left -= taken;
  }
  return rates;
}

}  // namespace pocketlm
