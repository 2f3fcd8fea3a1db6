// The table of encoders: one per instruction set, all of the same bytes, beside the table of kernels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketlm {

// Codes `blocks` blocks of weights x into `out`. Search minimises the squared error weighted by `w`, which Nearest does
// not read. Returns the index of the first block whose scale is beyond f16, -1 where there is none.
using EncodeBlocks = int64_t (*)(const float* x, const float* w, int64_t blocks, std::byte* out);

struct BlockEncoder {
  int type;
  EncodeBlocks nearest, search;
};

inline constexpr int kBlockEncoders = 15;

struct Encoders {
  const char* name;  // of the instruction set
  // Values of a row as floats; false where one is NaN or infinite. F32, F16 and BF16 sources have their own loops.
  bool (*load_f32)(const std::byte* data, int64_t count, float* out);
  bool (*load_f16)(const std::byte* data, int64_t count, float* out);
  bool (*load_bf16)(const std::byte* data, int64_t count, float* out);
  // Weights of the squared error of a row; importance [cols] or null.
  void (*weigh)(const float* x, const float* importance, int64_t cols, float* w);
  BlockEncoder of[kBlockEncoders];
};

// The table for the instruction set in use (kernels().name).
const Encoders& encoders();

}  // namespace pocketlm
