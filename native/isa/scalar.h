// The definition of the vector layer: 16 lanes as plain arrays. isa/avx2.h, avx512.h and neon.h say the same with
// registers, bit for bit. Included once by one translation unit, inside no namespace; everything has internal linkage.
//
//   F      16 floats             M      16 truth values
//   Codes  16 words of 4 codes   X      4 activations, repeated for the 16 words
//   Dot<kMax, kCount>            sum over kCount vectors of codes (0..kMax) times activations, exact, one lane a word
#pragma once

#include <cstdint>

#include "base/float16.h"

// Other instruction sets force inlining, for registers; here it would only cost minutes of compile time.
#define POCKETLM_INLINED
#define POCKETLM_INLINE inline

namespace pocketlm {
namespace {
namespace isa {

inline constexpr const char* kName = "scalar";
inline constexpr int kTile = 2;         // tokens that share a decoded weight
inline constexpr int kDirectTile = 2;   // the same where codes are decoded as they are read ...
inline constexpr int kDirectTokens = 3; // ... which pays up to so many tokens
inline constexpr int kFloatTile = 2;    // tokens of a float tile, times two panels
inline constexpr int kQueryTile = 4;    // queries that share a vector of keys or values
inline constexpr int kSums = 8;         // running sums that registers hold in attention
inline constexpr int kByteOffset = 128; // what Dot<255> has not yet taken off 8-bit codes

struct F { float lane[16]; };
struct M { bool lane[16]; };

template <class Fn>
POCKETLM_INLINE F lanes(Fn fn) {
  F r;
  for (int i = 0; i < 16; ++i) r.lane[i] = fn(i);
  return r;
}

POCKETLM_INLINE F set1(float x) { return lanes([=](int) { return x; }); }
POCKETLM_INLINE F iota() { return lanes([](int i) { return float(i); }); }
POCKETLM_INLINE F load(const float* p) { return lanes([=](int i) { return p[i]; }); }
POCKETLM_INLINE F load_f16(const uint16_t* p) { return lanes([=](int i) { return f32_from_f16(p[i]); }); }
POCKETLM_INLINE F load_bf16(const uint16_t* p) { return lanes([=](int i) { return f32_from_bf16(p[i]); }); }
POCKETLM_INLINE F load_u8(const uint8_t* p) { return lanes([=](int i) { return float(p[i]); }); }
POCKETLM_INLINE F load_i8(const int8_t* p) { return lanes([=](int i) { return float(p[i]); }); }
POCKETLM_INLINE F load_low_nibbles(const uint8_t* p) { return lanes([=](int i) { return float(p[i] & 15); }); }
POCKETLM_INLINE F load_high_nibbles(const uint8_t* p) { return lanes([=](int i) { return float(p[i] >> 4); }); }
POCKETLM_INLINE void store(float* p, F x) { for (int i = 0; i < 16; ++i) p[i] = x.lane[i]; }
POCKETLM_INLINE void store_f16(uint16_t* p, F x) { for (int i = 0; i < 16; ++i) p[i] = f16_from_f32(x.lane[i]); }
// Lanes are whole numbers in [-127, 127].
POCKETLM_INLINE void store_i8(int8_t* p, F x) { for (int i = 0; i < 16; ++i) p[i] = int8_t(x.lane[i]); }

POCKETLM_INLINE F add(F a, F b) { return lanes([&](int i) { return a.lane[i] + b.lane[i]; }); }
POCKETLM_INLINE F sub(F a, F b) { return lanes([&](int i) { return a.lane[i] - b.lane[i]; }); }
POCKETLM_INLINE F mul(F a, F b) { return lanes([&](int i) { return a.lane[i] * b.lane[i]; }); }
POCKETLM_INLINE F div(F a, F b) { return lanes([&](int i) { return a.lane[i] / b.lane[i]; }); }
POCKETLM_INLINE F fma(F a, F b, F c) {
  return lanes([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
}
// As maxps and minps: the second operand when either is NaN.
POCKETLM_INLINE F max(F a, F b) { return lanes([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; }); }
POCKETLM_INLINE F min(F a, F b) { return lanes([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; }); }
POCKETLM_INLINE F abs(F a) { return lanes([&](int i) { return __builtin_fabsf(a.lane[i]); }); }
POCKETLM_INLINE F round(F a) { return lanes([&](int i) { return __builtin_rintf(a.lane[i]); }); }  // half to even
POCKETLM_INLINE F copysign(F a, F sign) {
  return lanes([&](int i) { return __builtin_copysignf(a.lane[i], sign.lane[i]); });
}
// 2^n for whole n in [-126, 127].
POCKETLM_INLINE F pow2(F n) { return lanes([&](int i) { return f32_from_bits(uint32_t(int(n.lane[i]) + 127) << 23); }); }

POCKETLM_INLINE M less(F a, F b) {
  M r;
  for (int i = 0; i < 16; ++i) r.lane[i] = a.lane[i] < b.lane[i];
  return r;
}
POCKETLM_INLINE F select(M m, F yes, F no) { return lanes([&](int i) { return m.lane[i] ? yes.lane[i] : no.lane[i]; }); }

// The fixed tree: 8 apart, 4, 2, 1.
POCKETLM_INLINE float reduce_add(F x) {
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) x.lane[i] += x.lane[i + step];
  return x.lane[0];
}
POCKETLM_INLINE float reduce_max(F x) {
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) x.lane[i] = x.lane[i] > x.lane[i + step] ? x.lane[i] : x.lane[i + step];
  return x.lane[0];
}

struct Codes { uint8_t byte[64]; };
struct X { int8_t byte[4]; };

template <class Fn>
POCKETLM_INLINE Codes bytes(Fn fn) {
  Codes r;
  for (int i = 0; i < 64; ++i) r.byte[i] = uint8_t(fn(i));
  return r;
}

POCKETLM_INLINE Codes load_codes(const std::byte* p) { return bytes([=](int i) { return uint8_t(p[i]); }); }
POCKETLM_INLINE void store_codes(std::byte* p, Codes c) { for (int i = 0; i < 64; ++i) p[i] = std::byte(c.byte[i]); }
// Bits [kShift, kShift + kBits) of every byte.
template <int kShift, int kBits>
POCKETLM_INLINE Codes field(Codes c) { return bytes([&](int i) { return c.byte[i] >> kShift & ((1 << kBits) - 1); }); }
// The same, moved up by kUp and joined to `low`.
template <int kShift, int kBits, int kUp>
POCKETLM_INLINE Codes join(Codes low, Codes c) {
  return bytes([&](int i) { return low.byte[i] | (c.byte[i] >> kShift & ((1 << kBits) - 1)) << kUp; });
}
POCKETLM_INLINE X load_x(const int8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }

template <int kMax, int kCount>
struct Dot {
  int32_t sum[16] = {};

  // Vector number kIndex of the kCount.
  template <int kIndex>
  POCKETLM_INLINE void add(const Codes& w, X x) {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 4; ++j) sum[i] += int(w.byte[4 * i + j]) * x.byte[j];
  }
  // Less kOffset (0 or a power of 2) times *x_sum.
  template <int kOffset>
  POCKETLM_INLINE F total(const int32_t* x_sum) const {
    return lanes([&](int i) { return float(sum[i] - kOffset * *x_sum); });
  }
};

}  // namespace isa
}  // namespace
}  // namespace pocketlm
