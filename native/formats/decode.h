// GGUF block types: their sizes, and their weights as f32 exactly as ggml's reference implementation decodes them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketlm {

// Type ids as they stand in a file.
enum GgmlType : int {
  kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ5_0 = 6, kQ5_1 = 7, kQ8_0 = 8,
  kQ2_K = 10, kQ3_K = 11, kQ4_K = 12, kQ5_K = 13, kQ6_K = 14, kBF16 = 30, kTQ1_0 = 34, kTQ2_0 = 35, kI2_S = 36,
};

// Weights and bytes of one block; throw FormatError for a type that the core does not decode.
int64_t block_elements(int ggml_type);
size_t block_bytes(int ggml_type);

// Bytes of `count` weights that are a whole tensor: their blocks, and what a type keeps once after them (the f32 scale
// of I2_S and 28 unused bytes).
size_t tensor_bytes(int ggml_type, int64_t count);

// The scale that stands after the `count` weights of an I2_S tensor.
float i2_s_scale(const std::byte* data, int64_t count);

// `count` weights (a multiple of the block's) from `data`; of I2_S the whole tensor. The caller has checked the sizes.
void dequantize(int ggml_type, const std::byte* data, int64_t count, float* out);

}  // namespace pocketlm
