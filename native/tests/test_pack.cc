// Packing and unpacking: every type keeps every weight, whatever the number of rows, their order and the threads.
#include <cmath>
#include <cstring>
#include <span>
#include <stdexcept>

#include "formats/decode.h"
#include "pack/pack.h"
#include "tests/check.h"
#include "tests/random_blocks.h"

using namespace pocketlm;

namespace {

void check_rows(const PackedMatrix& matrix, const BlockShape& shape, std::span<const std::byte> data,
                std::span<const int32_t> row_map) {
  const size_t row_bytes = size_t(matrix.cols / shape.elements * shape.bytes);
  std::vector<float> expected(static_cast<size_t>(matrix.cols)), got(expected.size());
  for (int64_t r = 0; r < matrix.rows; ++r) {
    const size_t source = size_t(row_map.empty() ? r : row_map[size_t(r)]);
    dequantize(shape.type, data.data() + source * row_bytes, matrix.cols, expected.data());
    unpack_row(matrix, r, got.data());
    for (size_t k = 0; k < got.size(); ++k)
      CHECK(std::abs(got[k] - expected[k]) <= 2e-7f * std::abs(expected[k]) + 1e-7f);
  }
}

void test_round_trip() {
  std::mt19937 random(1);
  for (const BlockShape& shape : block_shapes()) {
    for (const int64_t rows : {1, 15, 16, 17, 50}) {
      const int64_t cols = shape.elements == 1 ? 37 : shape.elements * 3;
      const auto data = random_blocks(random, shape, rows, cols);
      const size_t row_bytes = size_t(cols / shape.elements * shape.bytes);
      std::vector<int32_t> reversed;
      for (int64_t r = 0; r < rows; ++r) reversed.push_back(int32_t(rows - 1 - r));
      for (const bool mapped : {false, true}) {
        PackedMatrix matrix = make_packed(layout_for(shape.type), rows, cols);
        std::memset(matrix.data.data(), 0xff, matrix.data.size());  // padding must be written, not found
        for (int64_t p = matrix.panels - 1; p >= 0; --p)
          pack_panels(shape.type, data.data(), row_bytes, mapped ? reversed.data() : nullptr, p, p + 1, matrix);
        check_rows(matrix, shape, data, mapped ? reversed : std::vector<int32_t>());
      }
    }
  }
}

// The packed copy costs at most 1.06 times the file's bytes, for matrices of a real model's shape.
void test_size() {
  for (const BlockShape& shape : block_shapes()) {
    if (shape.type == 34) continue;  // base 3 becomes 2 bits: 66 bytes for 54
    const size_t file = size_t(1536 * 1536 / shape.elements * shape.bytes);
    const size_t packed = plan_packed(layout_for(shape.type), 1536, 1536).bytes();
    CHECK(double(packed) <= 1.06 * double(file));
    CHECK(packed == make_packed(layout_for(shape.type), 1536, 1536).data.size());
  }
}

void test_errors() {
  CHECK_THROWS(FormatError, layout_for(4));
  CHECK_THROWS(FormatError, layout_for(-1));
  CHECK_THROWS(std::invalid_argument, make_packed(Layout::Q4_0, 16, 33));
  CHECK_THROWS(std::invalid_argument, make_packed(Layout::Q4_K, 16, 32));
  CHECK_THROWS(std::invalid_argument, make_packed(Layout::F32, 0, 32));
}

}  // namespace

int main() {
  test_round_trip();
  test_size();
  test_errors();
  return report();
}
