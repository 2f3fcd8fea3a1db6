#include "program/weight.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "formats/decode.h"
#include "pack/pack.h"

namespace pocketlm {

Weight pack_weight(int ggml_type, int64_t rows, int64_t cols, std::span<const std::byte> data,
                   std::span<const int32_t> row_map, int threads) {
  require(rows > 0 && cols > 0 && rows <= INT32_MAX && cols <= INT32_MAX, "a weight's rows and cols must be positive");
  const Layout layout = layout_for(ggml_type);
  const int64_t elements = block_elements(ggml_type);
  require(cols % elements == 0, "cols must be a multiple of the block size");
  const size_t row_bytes = size_t(cols / elements) * block_bytes(ggml_type);
  require(data.size() % row_bytes == 0, "data does not hold whole rows");
  const auto source_rows = int64_t(data.size() / row_bytes);
  require(row_map.empty() ? source_rows == rows : int64_t(row_map.size()) == rows, "data or row_map does not hold `rows` rows");
  for (const int32_t r : row_map) require(r >= 0 && r < source_rows, "row_map points outside the data");

  auto matrix = std::make_shared<PackedMatrix>(make_packed(layout, rows, cols));
  const int64_t workers = std::clamp<int64_t>(threads, 1, matrix->panels);
  auto work = [&](int64_t worker) {
    pack_panels(ggml_type, data.data(), row_bytes, row_map.empty() ? nullptr : row_map.data(),
                matrix->panels * worker / workers, matrix->panels * (worker + 1) / workers, *matrix);
  };
  std::vector<std::jthread> team;
  for (int64_t i = 1; i < workers; ++i) team.emplace_back(work, i);
  work(0);
  team.clear();  // joins
  return matrix;
}

}  // namespace pocketlm
