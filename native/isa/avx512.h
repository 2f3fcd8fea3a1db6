// The vector layer (see isa/scalar.h) on AVX-512 F, BW, VL, DQ and VNNI: one register is 16 lanes.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cstddef>
#include <cstdint>

#define POCKETLM_INLINED __attribute__((always_inline))
#define POCKETLM_INLINE inline POCKETLM_INLINED

namespace pocketlm {
namespace {
namespace isa {

inline constexpr const char* kName = "avx512";
inline constexpr int kTile = 8;
inline constexpr int kDirectTile = 4;   // the same where codes are decoded as they are read ...
inline constexpr int kDirectTokens = 5; // ... which pays up to so many tokens
inline constexpr int kFloatTile = 8;    // tokens of a float tile, times two panels
inline constexpr int kQueryTile = 8;
inline constexpr int kSums = 24;
inline constexpr int kByteOffset = 128;

using F = __m512;
using M = __mmask16;

POCKETLM_INLINE F set1(float x) { return _mm512_set1_ps(x); }
POCKETLM_INLINE F iota() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
POCKETLM_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
POCKETLM_INLINE F load_f16(const uint16_t* p) {
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
POCKETLM_INLINE F load_bf16(const uint16_t* p) {
  const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, wide, 16));
}
POCKETLM_INLINE __m128i load_16_bytes(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
POCKETLM_INLINE F f_from_u8(__m128i b) {
  return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepu8_epi32(0xffff, b));
}
POCKETLM_INLINE F load_u8(const uint8_t* p) { return f_from_u8(load_16_bytes(p)); }
POCKETLM_INLINE F load_i8(const int8_t* p) {
  return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, load_16_bytes(p)));
}
POCKETLM_INLINE F load_low_nibbles(const uint8_t* p) {
  return f_from_u8(_mm_and_si128(load_16_bytes(p), _mm_set1_epi8(15)));
}
POCKETLM_INLINE F load_high_nibbles(const uint8_t* p) {
  return f_from_u8(_mm_and_si128(_mm_srli_epi16(load_16_bytes(p), 4), _mm_set1_epi8(15)));
}
POCKETLM_INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x); }
POCKETLM_INLINE void store_f16(uint16_t* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(0xffff, x, _MM_FROUND_TO_NEAREST_INT));
}
POCKETLM_INLINE void store_i8(int8_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm512_maskz_cvtepi32_epi8(0xffff, _mm512_maskz_cvtps_epi32(0xffff, x)));
}

POCKETLM_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
POCKETLM_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
POCKETLM_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
POCKETLM_INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
POCKETLM_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
POCKETLM_INLINE F max(F a, F b) { return _mm512_maskz_max_ps(0xffff, a, b); }
POCKETLM_INLINE F min(F a, F b) { return _mm512_maskz_min_ps(0xffff, a, b); }
POCKETLM_INLINE F abs(F a) { return _mm512_maskz_andnot_ps(0xffff, _mm512_set1_ps(-0.0f), a); }
POCKETLM_INLINE F round(F a) { return _mm512_maskz_roundscale_ps(0xffff, a, _MM_FROUND_TO_NEAREST_INT); }
POCKETLM_INLINE F copysign(F a, F sign) {
  const F bit = _mm512_set1_ps(-0.0f);
  return _mm512_or_ps(_mm512_maskz_andnot_ps(0xffff, bit, a), _mm512_and_ps(bit, sign));
}
POCKETLM_INLINE F pow2(F n) {
  const __m512i biased = _mm512_add_epi32(_mm512_maskz_cvtps_epi32(0xffff, n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, biased, 23));
}

POCKETLM_INLINE M less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
POCKETLM_INLINE F select(M m, F yes, F no) { return _mm512_mask_blend_ps(m, no, yes); }

// GCC 12 warns of its own unmasked 512-bit intrinsics (their undefined operand) under -Wall; masked ones and builtins
// say the same without one.
POCKETLM_INLINE __m256 low_half(F x) { return __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7); }
POCKETLM_INLINE __m256 high_half(F x) { return __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15); }
POCKETLM_INLINE float reduce_add(F x) {
  const __m256 a = _mm256_add_ps(low_half(x), high_half(x));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
POCKETLM_INLINE float reduce_max(F x) {
  const __m256 a = _mm256_max_ps(low_half(x), high_half(x));
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}

using Codes = __m512i;
using X = __m512i;

POCKETLM_INLINE Codes load_codes(const std::byte* p) { return _mm512_loadu_si512(p); }
POCKETLM_INLINE void store_codes(std::byte* p, Codes c) { _mm512_storeu_si512(p, c); }
template <int kShift, int kBits>
POCKETLM_INLINE Codes field(Codes c) {
  if constexpr (kShift > 0) c = _mm512_srli_epi16(c, kShift);
  if constexpr (kBits < 8) c = _mm512_and_si512(c, _mm512_set1_epi8((1 << kBits) - 1));
  return c;
}
template <int kShift, int kBits, int kUp>
POCKETLM_INLINE Codes join(Codes low, Codes c) {
  if constexpr (kShift > kUp) c = _mm512_srli_epi16(c, kShift - kUp);
  if constexpr (kShift < kUp) c = _mm512_slli_epi16(c, kUp - kShift);
  return _mm512_or_si512(low, _mm512_and_si512(c, _mm512_set1_epi8(((1 << kBits) - 1) << kUp)));
}
POCKETLM_INLINE X load_x(const int8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return _mm512_set1_epi32(word);
}

template <int kMax, int kCount>
struct Dot {
  __m512i sum = _mm512_setzero_si512();

  template <int kIndex>
  POCKETLM_INLINE void add(Codes w, X x) { sum = _mm512_dpbusd_epi32(sum, w, x); }
  template <int kOffset>
  POCKETLM_INLINE F total(const int32_t* x_sum) const {
    if constexpr (kOffset == 0) return _mm512_maskz_cvtepi32_ps(0xffff, sum);
    const __m512i offset = _mm512_slli_epi32(_mm512_set1_epi32(*x_sum), std::countr_zero(unsigned(kOffset)));
    return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_sub_epi32(sum, offset));
  }
};

}  // namespace isa
}  // namespace
}  // namespace pocketlm
