// Random GGUF blocks with finite scales, for the tests of packing and of the kernels.
#pragma once

#include <cstddef>
#include <cstring>
#include <random>
#include <vector>

#include "base/float16.h"
#include "formats/blocks.h"

namespace pocketlm {

struct BlockShape {
  int type;
  int64_t elements, bytes;
  std::vector<int64_t> halves;  // where f16 values lie in a block
};

inline const std::vector<BlockShape>& block_shapes() {
  static const std::vector<BlockShape> shapes = {
      {0, 1, 4, {}},
      {1, 1, 2, {0}},
      {30, 1, 2, {}},
      {2, 32, sizeof(BlockQ4_0), {offsetof(BlockQ4_0, d)}},
      {3, 32, sizeof(BlockQ4_1), {offsetof(BlockQ4_1, d), offsetof(BlockQ4_1, m)}},
      {6, 32, sizeof(BlockQ5_0), {offsetof(BlockQ5_0, d)}},
      {7, 32, sizeof(BlockQ5_1), {offsetof(BlockQ5_1, d), offsetof(BlockQ5_1, m)}},
      {8, 32, sizeof(BlockQ8_0), {offsetof(BlockQ8_0, d)}},
      {10, 256, sizeof(BlockQ2_K), {offsetof(BlockQ2_K, d), offsetof(BlockQ2_K, dmin)}},
      {11, 256, sizeof(BlockQ3_K), {offsetof(BlockQ3_K, d)}},
      {12, 256, sizeof(BlockQ4_K), {offsetof(BlockQ4_K, d), offsetof(BlockQ4_K, dmin)}},
      {13, 256, sizeof(BlockQ5_K), {offsetof(BlockQ5_K, d), offsetof(BlockQ5_K, dmin)}},
      {14, 256, sizeof(BlockQ6_K), {offsetof(BlockQ6_K, d)}},
      {34, 256, sizeof(BlockTQ1_0), {offsetof(BlockTQ1_0, d)}},
      {35, 256, sizeof(BlockTQ2_0), {offsetof(BlockTQ2_0, d)}},
  };
  return shapes;
}

inline float random_float(std::mt19937& random, float scale = 1) {
  return std::normal_distribution<float>(0, scale)(random);
}

inline std::vector<float> random_floats(std::mt19937& random, int64_t n, float scale = 1) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = random_float(random, scale);
  return values;
}

inline std::vector<std::byte> random_blocks(std::mt19937& random, const BlockShape& shape, int64_t rows, int64_t cols) {
  const int64_t blocks = rows * cols / shape.elements;
  std::vector<std::byte> data(static_cast<size_t>(blocks * shape.bytes));
  for (int64_t i = 0; i < blocks; ++i) {
    std::byte* block = data.data() + i * shape.bytes;
    for (int64_t j = 0; j < shape.bytes; ++j) block[j] = std::byte(random() & 255);
    for (const int64_t at : shape.halves) {
      const uint16_t h = f16_from_f32(random_float(random, 0.01f));
      std::memcpy(block + at, &h, 2);
    }
    const uint32_t bits = bits_from_f32(random_float(random));
    if (shape.type == 0) std::memcpy(block, &bits, 4);
    if (shape.type == 30) {
      const auto h = uint16_t(bits >> 16);
      std::memcpy(block, &h, 2);
    }
  }
  return data;
}

}  // namespace pocketlm
