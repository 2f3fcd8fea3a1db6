#include "program/weight.h"

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

#include "formats/decode.h"
#include "pack/pack.h"

namespace pocketlm {
namespace {

constexpr size_t kSliceBytes = size_t{16} << 20;  // of data, between two calls of `read`
constexpr size_t kShareBytes = size_t{2} << 20;   // of data, for which it pays to wake a thread

void require_shape(int64_t rows, int64_t cols) {
  require(rows > 0 && cols > 0 && rows <= INT32_MAX && cols <= INT32_MAX, "a weight's rows and cols must be positive");
}

// Runs work(begin, end) over parts of [begin, end) on `workers` threads.
template <class Work>
void share(int64_t begin, int64_t end, int64_t workers, const Work& work) {
  const int64_t count = end - begin;
  const auto part = [&](int64_t i) { work(begin + count * i / workers, begin + count * (i + 1) / workers); };
  std::vector<std::jthread> team;
  for (int64_t i = 1; i < workers; ++i) team.emplace_back(part, i);
  part(0);
}

}  // namespace

Weight plan_weight(int ggml_type, int64_t rows, int64_t cols) {
  require_shape(rows, cols);
  return std::make_shared<PackedMatrix>(plan_packed(layout_for(ggml_type), rows, cols));
}

Weight pack_weight(int ggml_type, int64_t rows, int64_t cols, std::span<const std::byte> data,
                   std::span<const int32_t> row_map, int threads, const std::function<void()>& read) {
  require_shape(rows, cols);
  const Layout layout = layout_for(ggml_type);
  const int64_t elements = block_elements(ggml_type);
  require(cols % elements == 0, "cols must be a multiple of the block size");
  const size_t row_bytes = size_t(cols / elements) * block_bytes(ggml_type);
  const size_t tail = tensor_bytes(ggml_type, 0);
  require(data.size() >= tail && (data.size() - tail) % row_bytes == 0, "data does not hold whole rows");
  const auto source_rows = int64_t((data.size() - tail) / row_bytes);
  require(row_map.empty() ? source_rows == rows : int64_t(row_map.size()) == rows, "data or row_map does not hold `rows` rows");
  for (const int32_t r : row_map) require(r >= 0 && r < source_rows, "row_map points outside the data");

  auto matrix = std::make_shared<PackedMatrix>(make_packed(layout, rows, cols));
  if (ggml_type == kI2_S) {
    matrix->scale = i2_s_scale(data.data(), source_rows * cols);
    require(std::isfinite(matrix->scale), "the scale of the weights is not a finite number");
  }
  const size_t panel_bytes = row_bytes * size_t(kPanel);
  const int64_t slice = std::max<int64_t>(threads, int64_t(kSliceBytes / panel_bytes));
  for (int64_t panel = 0; panel < matrix->panels; panel += slice) {
    const int64_t last = std::min(panel + slice, matrix->panels);
    const auto worth = int64_t(size_t(last - panel) * panel_bytes / kShareBytes);
    share(panel, last, std::clamp<int64_t>(worth, 1, threads), [&](int64_t begin, int64_t end) {
      pack_panels(ggml_type, data.data(), row_bytes, row_map.empty() ? nullptr : row_map.data(), begin, end, *matrix);
    });
    if (read) read();
  }
  return matrix;
}

}  // namespace pocketlm
