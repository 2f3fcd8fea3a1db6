// Sixteen groups of weights side by side: what the encoders compute with.
//
// A quantizer is a sequence of dependent float operations over the 16 or 32 weights that share a scale. Put side by
// side, weight i of sixteen such groups, every lane of a vector runs its own group's sequence: vectors of any width give
// the same bits as a loop over one group, with no sum split and no order changed. Written with the compiler's vector
// types, so that one source serves every instruction set; included by one translation unit for each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace pocketlm {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
constexpr int kLanes = 16;  // groups of a tile, whatever the width of a vector

typedef float Floats __attribute__((vector_size(4 * kWidth)));
typedef int32_t Ints __attribute__((vector_size(4 * kWidth)));

#define POCKETLM_LANES __attribute__((always_inline)) inline

POCKETLM_LANES Floats splat(float x) { return x - Floats{}; }
POCKETLM_LANES Ints splat_int(int32_t x) { return x - Ints{}; }
POCKETLM_LANES Floats load(const float* p) {
  Floats x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}
POCKETLM_LANES void store(float* p, Floats x) { std::memcpy(p, &x, sizeof(x)); }

POCKETLM_LANES Ints bits_of(Floats x) { return (Ints)x; }
POCKETLM_LANES Floats floats_of(Ints bits) { return (Floats)bits; }
POCKETLM_LANES Floats abs(Floats x) { return floats_of(bits_of(x) & 0x7fffffff); }

// a < b ? a : b, and a > b ? a : b: b where they are equal or one is NaN. x86's instruction is just that, but gcc 12 makes
// a comparison and a blend of it.
#if defined(__AVX512F__)
POCKETLM_LANES Floats min(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
POCKETLM_LANES Floats max(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
POCKETLM_LANES Floats min(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }
POCKETLM_LANES Floats max(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
#elif defined(__SSE2__)
POCKETLM_LANES Floats min(Floats a, Floats b) { return (Floats)_mm_min_ps((__m128)a, (__m128)b); }
POCKETLM_LANES Floats max(Floats a, Floats b) { return (Floats)_mm_max_ps((__m128)a, (__m128)b); }
#else
POCKETLM_LANES Floats min(Floats a, Floats b) { return a < b ? a : b; }
POCKETLM_LANES Floats max(Floats a, Floats b) { return a > b ? a : b; }
#endif

POCKETLM_LANES Ints clamp(Ints x, int32_t low, int32_t high) {
  x = x < low ? splat_int(low) : x;
  return x > high ? splat_int(high) : x;
}
POCKETLM_LANES Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }

POCKETLM_LANES Floats sqrt(Floats x) {
  for (int i = 0; i < kWidth; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

// ggml's nearest_int: adding 1.5 * 2^23 leaves the nearest integer, ties to even, in the mantissa. Beyond +-2^22 (only
// where scales are subnormal) it gives what the bits happen to say, here as there.
POCKETLM_LANES Ints nearest_int(Floats x) { return (bits_of(x + 12582912.0f) & 0x007fffff) - 0x00400000; }

// The same as a float, for |x| < 2^22.
POCKETLM_LANES Floats nearest(Floats x) { return (x + 12582912.0f) - 12582912.0f; }

// Sixteen groups of N weights: weight i of group `lane` is at [i][lane].
template <int N>
struct Tile {
  alignas(64) float x[N][kLanes];
  alignas(64) float w[N][kLanes];
};
template <int N>
struct Codes {
  alignas(64) uint8_t of[N][kLanes];
};

// Fills lanes [0, groups) from consecutive groups, the others with zeros.
template <int N>
void transpose(const float* source, int64_t groups, float (&out)[N][kLanes]) {
  if (groups < kLanes) std::memset(out, 0, sizeof(out));
  for (int lane = 0; lane < groups && lane < kLanes; ++lane)
    for (int i = 0; i < N; ++i) out[i][lane] = source[lane * N + i];
}

// Codes of lane after lane: group `lane` is at [lane * N].
template <int N>
void transpose(const Codes<N>& codes, uint8_t* out) {
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < N; ++i) out[lane * N + i] = codes.of[i][lane];
}

// Small non-negative integers as bytes.
POCKETLM_LANES void store_codes(uint8_t* p, Ints codes) {
  typedef uint8_t Bytes __attribute__((vector_size(kWidth)));
  const Bytes bytes = __builtin_convertvector(codes, Bytes);
  std::memcpy(p, &bytes, sizeof(bytes));
}

POCKETLM_LANES Ints load_codes(const uint8_t* p) {
  typedef uint8_t Bytes __attribute__((vector_size(kWidth)));
  Bytes bytes;
  std::memcpy(&bytes, p, sizeof(bytes));
  return __builtin_convertvector(bytes, Ints);
}

// f16 from and to f32, bit exact for finite numbers (base/float16.h has the same; inline functions of shared headers must
// not be emitted here). A result with all exponent bits set is one that f16 cannot hold.
POCKETLM_LANES Floats from_halves(Ints h) {
  // The product rebiases the exponent and makes subnormals normal.
  const Floats magnitude = floats_of((h & 0x7fff) << 13) * 0x1p112f;
  return floats_of(bits_of(magnitude) | (h & 0x8000) << 16);
}

POCKETLM_LANES Ints to_halves(Floats x) {
  const Ints sign = (bits_of(x) >> 16) & 0x8000, magnitude = bits_of(x) & 0x7fffffff;
  const Ints subnormal = bits_of(floats_of(magnitude) + 0.5f) - 0x3f000000;  // the sum is rounded at 2^-24
  const Ints normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const Ints rounded = magnitude < 0x38800000 ? subnormal : normal;
  return sign | (magnitude >= 0x477ff000 ? splat_int(0x7c00) : rounded);
}

POCKETLM_LANES float from_half(uint16_t h) { return from_halves(splat_int(h))[0]; }
POCKETLM_LANES uint16_t to_half(float x) { return uint16_t(to_halves(splat(x))[0]); }
POCKETLM_LANES bool is_beyond_half(uint16_t h) { return (h & 0x7c00) == 0x7c00; }

}  // namespace
}  // namespace pocketlm
