// Rows of floats: read from a source, weighed, and written as blocks by an encoder of tiles.
#pragma once

#include "formats/decode.h"
#include "quantize/encode_blocks-inl.h"
#include "quantize/encode_super-inl.h"
#include "quantize/encode_table.h"

namespace pocketlm {
namespace {

// --- sources ---------------------------------------------------------------------------------------------------------

struct SourceF32 {
  static constexpr int kBytes = 4;
  static uint32_t bits(const std::byte* p) {
    uint32_t b;
    std::memcpy(&b, p, 4);
    return b;
  }
  static float value(uint32_t b) {
    float x;
    std::memcpy(&x, &b, 4);
    return x;
  }
  static constexpr uint32_t kExponent = 0x7f800000;
};

struct SourceHalf {
  static constexpr int kBytes = 2;
  static uint32_t bits(const std::byte* p) {
    uint16_t b;
    std::memcpy(&b, p, 2);
    return b;
  }
};

struct SourceF16 : SourceHalf {
  static float value(uint32_t b) {
    const float magnitude = SourceF32::value((b & 0x7fff) << 13) * 0x1p112f;  // as in from_halves
    return b & 0x8000 ? -magnitude : magnitude;
  }
  static constexpr uint32_t kExponent = 0x7c00;
};

struct SourceBF16 : SourceHalf {
  static float value(uint32_t b) { return SourceF32::value(b << 16); }
  static constexpr uint32_t kExponent = 0x7f80;
};

template <class Source>
bool load_row(const std::byte* data, int64_t count, float* out) {
  uint32_t odd = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = Source::bits(data + i * Source::kBytes);
    odd |= (bits & Source::kExponent) == Source::kExponent;
    out[i] = Source::value(bits);
  }
  return odd == 0;
}

// The importance as it is, which is what a layer's output error comes to when errors are independent; 1 without one.
// ggml multiplies by sqrt(mean x^2 + x^2): on the inputs that real layers see, that left more output error than this.
void weigh_row(const float*, const float* importance, int64_t cols, float* w) {
  for (int64_t i = 0; i < cols; ++i) w[i] = importance ? importance[i] : 1.0f;
}

// --- types without blocks ----------------------------------------------------------------------------------------------

int64_t encode_f32(const float* x, const float*, int64_t count, std::byte* out) {
  std::memcpy(out, x, size_t(count) * 4);
  return -1;
}

template <class Convert>
int64_t encode_halves(const float* x, int64_t count, std::byte* out, uint16_t exponent, const Convert& convert) {
  int64_t beyond = -1;
  for (int64_t i = 0; i < count; i += kWidth) {
    const int64_t n = count - i < kWidth ? count - i : kWidth;
    float values[kWidth] = {};
    std::memcpy(values, x + i, size_t(n) * 4);
    const Ints halves = convert(load(values));
    for (int64_t j = 0; j < n; ++j) {
      const auto half = uint16_t(halves[j]);
      std::memcpy(out + 2 * (i + j), &half, 2);
      if ((half & exponent) == exponent && beyond < 0) beyond = i + j;
    }
  }
  return beyond;
}

int64_t encode_f16(const float* x, const float*, int64_t count, std::byte* out) {
  return encode_halves(x, count, out, 0x7c00, [](Floats v) { return to_halves(v); });
}

int64_t encode_bf16(const float* x, const float*, int64_t count, std::byte* out) {
  return encode_halves(x, count, out, 0x7f80,
                       [](Floats v) { return (bits_of(v) + 0x7fff + ((bits_of(v) >> 16) & 1)) >> 16; });
}

// --- types of one scale --------------------------------------------------------------------------------------------------

template <class Block>
concept HasMinimum = requires(Block b) { b.m; };

// False where a scale is beyond f16.
template <class Block>
POCKETLM_LANES bool write_block(const uint8_t* codes, const Scales& scales, int lane, std::byte* out) {
  Block block;
  block.d = to_half(scales.d[lane]);
  bool sound = !is_beyond_half(block.d);
  if constexpr (HasMinimum<Block>) {
    block.m = to_half(scales.m[lane]);
    sound = sound && !is_beyond_half(block.m);
  }
  pack(codes, block);
  std::memcpy(out, &block, sizeof(block));
  return sound;
}

// No block type reaches this far: the largest is Q6_K's 65504 * 128 * 32. Squares of smaller weights cannot overflow.
constexpr float kUnreachable = 3e8f;

// The index of the first of the weights that is out of reach, -1 where there is none.
inline int64_t first_unreachable(const float* x, int64_t count) {
  uint32_t any = 0;
  for (int64_t i = 0; i < count; ++i) any |= uint32_t(x[i] > kUnreachable) | uint32_t(x[i] < -kUnreachable);
  for (int64_t i = 0; any && i < count; ++i)
    if (x[i] > kUnreachable || x[i] < -kUnreachable) return i;
  return -1;
}

template <class Block, int N, class Encoder>
int64_t encode_groups(const float* x, const float* w, int64_t blocks, std::byte* out) {
  if (const int64_t at = first_unreachable(x, blocks * N); at >= 0) return at / N;
  Tile<N> tile;
  Codes<N> codes;
  Scales scales;
  alignas(64) uint8_t flat[kLanes * N];
  int64_t beyond = -1;
  for (int64_t at = 0; at < blocks; at += kLanes) {
    const int64_t groups = blocks - at < kLanes ? blocks - at : kLanes;
    transpose(x + at * N, groups, tile.x);
    if (Encoder::kWeighted) transpose(w + at * N, groups, tile.w);
    for (int lane = 0; lane < kLanes; lane += kWidth) Encoder::encode(tile, lane, codes, scales);
    transpose(codes, flat);
    for (int64_t i = 0; i < groups; ++i)
      if (!write_block<Block>(flat + i * N, scales, int(i), out + size_t(at + i) * sizeof(Block)) && beyond < 0)
        beyond = at + i;
  }
  return beyond;
}

// --- super-blocks ------------------------------------------------------------------------------------------------------------

template <class Encoder>
int64_t encode_supers(const float* x, const float* w, int64_t blocks, std::byte* out) {
  if (const int64_t at = first_unreachable(x, blocks * 256); at >= 0) return at / 256;
  using Block = typename Encoder::Block;
  constexpr int kAtOnce = kLanes / Encoder::kGroups;  // super-blocks of a tile
  Tile<Encoder::kGroup> tile;
  Codes<Encoder::kGroup> codes;
  SuperScales supers[kAtOnce];
  alignas(64) uint8_t flat[kLanes * Encoder::kGroup];
  int64_t beyond = -1;
  for (int64_t at = 0; at < blocks; at += kAtOnce) {
    const int64_t count = blocks - at < kAtOnce ? blocks - at : kAtOnce;
    transpose(x + at * 256, count * Encoder::kGroups, tile.x);
    if (Encoder::kWeighted) transpose(w + at * 256, count * Encoder::kGroups, tile.w);
    Encoder::encode(tile, codes, supers);
    transpose(codes, flat);
    for (int64_t i = 0; i < count; ++i) {
      Block block;
      pack(flat + i * 256, supers[i], block);
      std::memcpy(out + size_t(at + i) * sizeof(Block), &block, sizeof(block));
      if ((is_beyond_half(supers[i].d) || is_beyond_half(supers[i].dmin)) && beyond < 0) beyond = at + i;
    }
  }
  return beyond;
}

}  // namespace
}  // namespace pocketlm
