// Packing and unpacking: every type keeps every weight, whatever the number of rows, their order and the threads.
#include <cmath>
#include <cstring>
#include <span>
#include <stdexcept>

#include "formats/decode.h"
#include "pack/pack.h"
#include "program/weight.h"
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

// I2_S: no scale in the blocks, one of the tensor, after them.
void test_i2_s() {
  std::mt19937 random(2);
  const int64_t rows = 19, cols = 512, count = rows * cols;
  std::vector<std::byte> data(tensor_bytes(kI2_S, count));
  for (std::byte& byte : data) byte = std::byte(random() & 0x55);  // codes 0 and 1
  const float scale = 0.1f;
  std::memcpy(data.data() + count / 4, &scale, 4);
  std::vector<float> expected(static_cast<size_t>(count)), got(static_cast<size_t>(cols));
  dequantize(kI2_S, data.data(), count, expected.data());
  const std::vector<int32_t> reversed = [] {
    std::vector<int32_t> map;
    for (int32_t r = 18; r >= 0; --r) map.push_back(r);
    return map;
  }();
  const Weight matrix = pack_weight(kI2_S, rows, cols, data, reversed, 2);
  CHECK(matrix->scale == scale);
  for (int64_t r = 0; r < rows; ++r) {
    unpack_row(*matrix, r, got.data());
    CHECK(std::memcmp(got.data(), expected.data() + (rows - 1 - r) * cols, got.size() * sizeof(float)) == 0);
  }

  CHECK_THROWS(std::invalid_argument, pack_weight(kI2_S, rows, cols, std::span(data).first(data.size() - 32), {}, 1));
  CHECK_THROWS(std::invalid_argument, pack_weight(kI2_S, rows, cols, std::span(data).first(31), {}, 1));
  CHECK_THROWS(std::invalid_argument, pack_weight(kI2_S, rows * 8, cols / 8, data, {}, 1));
  for (const float bad : {NAN, INFINITY}) {
    std::memcpy(data.data() + count / 4, &bad, 4);
    CHECK_THROWS(std::invalid_argument, pack_weight(kI2_S, rows, cols, data, {}, 1));
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
  test_i2_s();
  test_size();
  test_errors();
  return report();
}
