// Each decoder keeps the reference's order of float operations, so results agree bit for bit: the build must not
// contract multiply-adds (-ffp-contract=off). Layouts: formats/blocks.h.
#include "formats/decode.h"

#include <cstring>
#include <string>

#include "base/error.h"
#include "base/float16.h"
#include "formats/blocks.h"
#include "formats/k_scales.h"

namespace pocketlm {
namespace {

void decode(const BlockQ4_0& b, float* y) {
  const float d = f32_from_f16(b.d);
  for (int j = 0; j < 16; ++j) {
    y[j] = float((b.qs[j] & 15) - 8) * d;
    y[j + 16] = float((b.qs[j] >> 4) - 8) * d;
  }
}

void decode(const BlockQ4_1& b, float* y) {
  const float d = f32_from_f16(b.d), m = f32_from_f16(b.m);
  for (int j = 0; j < 16; ++j) {
    y[j] = float(b.qs[j] & 15) * d + m;
    y[j + 16] = float(b.qs[j] >> 4) * d + m;
  }
}

// Bit j of the 32 fifth bits.
int fifth_bit(const uint8_t (&qh)[4], int j) { return ((qh[j / 8] >> (j % 8)) & 1) << 4; }

void decode(const BlockQ5_0& b, float* y) {
  const float d = f32_from_f16(b.d);
  for (int j = 0; j < 16; ++j) {
    y[j] = float(((b.qs[j] & 15) | fifth_bit(b.qh, j)) - 16) * d;
    y[j + 16] = float(((b.qs[j] >> 4) | fifth_bit(b.qh, j + 16)) - 16) * d;
  }
}

void decode(const BlockQ5_1& b, float* y) {
  const float d = f32_from_f16(b.d), m = f32_from_f16(b.m);
  for (int j = 0; j < 16; ++j) {
    y[j] = float((b.qs[j] & 15) | fifth_bit(b.qh, j)) * d + m;
    y[j + 16] = float((b.qs[j] >> 4) | fifth_bit(b.qh, j + 16)) * d + m;
  }
}

void decode(const BlockQ8_0& b, float* y) {
  const float d = f32_from_f16(b.d);
  for (int j = 0; j < 32; ++j) y[j] = float(b.qs[j]) * d;
}

// Two halves of 128; in each, bit pair s of bytes 0..31 makes the weights 32 s .. 32 s + 31.
void decode(const BlockQ2_K& b, float* y) {
  const float d = f32_from_f16(b.d), dmin = f32_from_f16(b.dmin);
  for (int i = 0; i < 256; ++i) {
    const uint8_t scale = b.scales[i / 16];
    const float dl = d * float(scale & 15), ml = dmin * float(scale >> 4);
    const int q = (b.qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2)) & 3;
    y[i] = dl * float(q) - ml;
  }
}

void decode(const BlockQ3_K& b, float* y) {
  const float d = f32_from_f16(b.d);
  for (int i = 0; i < 256; ++i) {
    const float dl = d * float(q3_k_scale(b.scales, i / 16));
    const int low = (b.qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2)) & 3;
    const int high = (b.hmask[i % 32] >> (i / 32)) & 1;
    y[i] = dl * float(low - (high ? 0 : 4));
  }
}

void decode(const BlockQ4_K& b, float* y) {
  const float d = f32_from_f16(b.d), dmin = f32_from_f16(b.dmin);
  for (int group = 0; group < 8; ++group) {
    const ScaleMin s = q4_k_scale_min(b.scales, group);
    const float dl = d * float(s.scale), ml = dmin * float(s.min);
    for (int j = 0; j < 32; ++j) {
      const int q = (b.qs[group / 2 * 32 + j] >> (group % 2 * 4)) & 15;
      y[group * 32 + j] = dl * float(q) - ml;
    }
  }
}

void decode(const BlockQ5_K& b, float* y) {
  const float d = f32_from_f16(b.d), dmin = f32_from_f16(b.dmin);
  for (int group = 0; group < 8; ++group) {
    const ScaleMin s = q4_k_scale_min(b.scales, group);
    const float dl = d * float(s.scale), ml = dmin * float(s.min);
    for (int j = 0; j < 32; ++j) {
      const int low = (b.qs[group / 2 * 32 + j] >> (group % 2 * 4)) & 15;
      const int high = (b.qh[j] >> group) & 1;
      y[group * 32 + j] = dl * float(low + 16 * high) - ml;
    }
  }
}

// Two halves of 128; in each, weight i is the nibble i / 64 of byte i % 64 and the bit pair i / 32 of high byte i % 32.
void decode(const BlockQ6_K& b, float* y) {
  const float d = f32_from_f16(b.d);
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 128; ++i) {
      const int low = (b.ql[half * 64 + i % 64] >> (i / 64 * 4)) & 15;
      const int high = (b.qh[half * 32 + i % 32] >> (i / 32 * 2)) & 3;
      y[half * 128 + i] = d * float(b.scales[half * 8 + i / 16]) * float((low | high << 4) - 32);
    }
  }
}

// Digit n (of 5, most significant first) of a byte that holds a number in base 3, scaled to 0..255.
int trit(uint8_t byte, int n) {
  constexpr uint8_t kPow3[5] = {1, 3, 9, 27, 81};
  return (uint16_t(uint8_t(byte * kPow3[n])) * 3) >> 8;
}

// Bytes in runs of 32, 16 and 4; each run gives its first digits, then its second ones, and so on.
void decode(const BlockTQ1_0& b, float* y) {
  const float d = f32_from_f16(b.d);
  const auto run = [&](const uint8_t* bytes, int count, int digits) {
    for (int n = 0; n < digits; ++n)
      for (int j = 0; j < count; ++j) *y++ = float(trit(bytes[j], n) - 1) * d;
  };
  run(b.qs, 32, 5);
  run(b.qs + 32, 16, 5);
  run(b.qh, 4, 4);
}

void decode(const BlockTQ2_0& b, float* y) {
  const float d = f32_from_f16(b.d);
  for (int i = 0; i < 256; ++i) {
    const int q = (b.qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2)) & 3;
    y[i] = float(q - 1) * d;
  }
}

// Weight j of a block is in byte j % 32, the first 32 weights in the highest bits.
void decode_i2_s(const std::byte* data, int64_t count, int64_t elements, float* out) {
  const float scale = i2_s_scale(data, count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t j = i % elements;
    const int q = (int(data[i / elements * 32 + j % 32]) >> (6 - j / 32 * 2)) & 3;
    out[i] = float(q - 1) * scale;
  }
}

template <class Block>
void decode_all(const std::byte* data, int64_t count, int64_t elements, float* out) {
  for (int64_t i = 0; i < count / elements; ++i) {
    Block block;
    std::memcpy(&block, data + size_t(i) * sizeof(Block), sizeof(Block));  // a file aligns tensors, not blocks
    decode(block, out + i * elements);
  }
}

template <float (*kConvert)(uint16_t)>
void decode_halves(const std::byte* data, int64_t count, int64_t, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, data + 2 * i, 2);
    out[i] = kConvert(half);
  }
}

void copy_floats(const std::byte* data, int64_t count, int64_t, float* out) { std::memcpy(out, data, size_t(count) * 4); }

struct TypeFacts {
  int64_t elements;
  size_t bytes;
  void (*decode)(const std::byte* data, int64_t count, int64_t elements, float* out);
};

template <class Block>
constexpr TypeFacts block_facts(int64_t elements) {
  return {elements, sizeof(Block), &decode_all<Block>};
}

TypeFacts facts(int ggml_type) {
  switch (ggml_type) {
    case kF32: return {1, 4, &copy_floats};
    case kF16: return {1, 2, &decode_halves<f32_from_f16>};
    case kBF16: return {1, 2, &decode_halves<f32_from_bf16>};
    case kQ4_0: return block_facts<BlockQ4_0>(32);
    case kQ4_1: return block_facts<BlockQ4_1>(32);
    case kQ5_0: return block_facts<BlockQ5_0>(32);
    case kQ5_1: return block_facts<BlockQ5_1>(32);
    case kQ8_0: return block_facts<BlockQ8_0>(32);
    case kQ2_K: return block_facts<BlockQ2_K>(256);
    case kQ3_K: return block_facts<BlockQ3_K>(256);
    case kQ4_K: return block_facts<BlockQ4_K>(256);
    case kQ5_K: return block_facts<BlockQ5_K>(256);
    case kQ6_K: return block_facts<BlockQ6_K>(256);
    case kTQ1_0: return block_facts<BlockTQ1_0>(256);
    case kTQ2_0: return block_facts<BlockTQ2_0>(256);
    case kI2_S: return {128, sizeof(BlockI2_S), &decode_i2_s};
    default: throw FormatError("GGUF block type " + std::to_string(ggml_type) + " is not one that PocketLM decodes");
  }
}

}  // namespace

int64_t block_elements(int ggml_type) { return facts(ggml_type).elements; }
size_t block_bytes(int ggml_type) { return facts(ggml_type).bytes; }

size_t tensor_bytes(int ggml_type, int64_t count) {
  const TypeFacts type = facts(ggml_type);
  return size_t(count / type.elements) * type.bytes + (ggml_type == kI2_S ? 32 : 0);
}

float i2_s_scale(const std::byte* data, int64_t count) {
  float scale;
  std::memcpy(&scale, data + count / 4, sizeof(scale));
  return scale;
}

void dequantize(int ggml_type, const std::byte* data, int64_t count, float* out) {
  const TypeFacts type = facts(ggml_type);
  type.decode(data, count, type.elements, out);
}

}  // namespace pocketlm
