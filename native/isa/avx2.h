// The vector layer (see isa/scalar.h) on AVX2, FMA and F16C: two registers are 16 lanes.
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

inline constexpr const char* kName = "avx2";
inline constexpr int kTile = 3;
inline constexpr int kDirectTile = 2;   // the same where codes are decoded as they are read ...
inline constexpr int kDirectTokens = 4; // ... which pays up to so many tokens
inline constexpr int kFloatTile = 2;    // tokens of a float tile, times two panels
inline constexpr int kQueryTile = 3;
inline constexpr int kSums = 6;
inline constexpr int kByteOffset = 0;  // Dot<255> works on signed codes

struct F { __m256 a, b; };
struct M { __m256 a, b; };

POCKETLM_INLINE F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
POCKETLM_INLINE F iota() {
  return {_mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15)};
}
POCKETLM_INLINE F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
POCKETLM_INLINE __m128i load_16_bytes(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
POCKETLM_INLINE F load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(load_16_bytes(p)), _mm256_cvtph_ps(load_16_bytes(p + 8))};
}
POCKETLM_INLINE __m256 f_from_bf16(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
POCKETLM_INLINE F load_bf16(const uint16_t* p) { return {f_from_bf16(load_16_bytes(p)), f_from_bf16(load_16_bytes(p + 8))}; }
POCKETLM_INLINE F f_from_u8(__m128i b) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(b, 8)))};
}
POCKETLM_INLINE F load_u8(const uint8_t* p) { return f_from_u8(load_16_bytes(p)); }
POCKETLM_INLINE F load_i8(const int8_t* p) {
  const __m128i b = load_16_bytes(p);
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(b, 8)))};
}
POCKETLM_INLINE F load_low_nibbles(const uint8_t* p) {
  return f_from_u8(_mm_and_si128(load_16_bytes(p), _mm_set1_epi8(15)));
}
POCKETLM_INLINE F load_high_nibbles(const uint8_t* p) {
  return f_from_u8(_mm_and_si128(_mm_srli_epi16(load_16_bytes(p), 4), _mm_set1_epi8(15)));
}
POCKETLM_INLINE void store(float* p, F x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
POCKETLM_INLINE void store_f16(uint16_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
POCKETLM_INLINE __m128i i16_from_f(__m256 x) {
  const __m256i i = _mm256_cvtps_epi32(x);
  return _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
}
POCKETLM_INLINE void store_i8(int8_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(i16_from_f(x.a), i16_from_f(x.b)));
}

POCKETLM_INLINE F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
POCKETLM_INLINE F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
POCKETLM_INLINE F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
POCKETLM_INLINE F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
POCKETLM_INLINE F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
POCKETLM_INLINE F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
POCKETLM_INLINE F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
POCKETLM_INLINE F abs(F x) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(bit, x.a), _mm256_andnot_ps(bit, x.b)};
}
POCKETLM_INLINE F round(F x) {
  return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
POCKETLM_INLINE F copysign(F x, F sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(bit, x.a), _mm256_and_ps(bit, sign.a)),
          _mm256_or_ps(_mm256_andnot_ps(bit, x.b), _mm256_and_ps(bit, sign.b))};
}
POCKETLM_INLINE __m256 pow2_half(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
POCKETLM_INLINE F pow2(F n) { return {pow2_half(n.a), pow2_half(n.b)}; }

POCKETLM_INLINE M less(F x, F y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)}; }
POCKETLM_INLINE F select(M m, F yes, F no) { return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)}; }

POCKETLM_INLINE float reduce_add(F x) {
  const __m256 a = _mm256_add_ps(x.a, x.b);
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
POCKETLM_INLINE float reduce_max(F x) {
  const __m256 a = _mm256_max_ps(x.a, x.b);
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}

struct Codes { __m256i a, b; };
using X = __m256i;

POCKETLM_INLINE Codes load_codes(const std::byte* p) {
  const auto* v = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
}
POCKETLM_INLINE void store_codes(std::byte* p, Codes c) {
  auto* v = reinterpret_cast<__m256i*>(p);
  _mm256_storeu_si256(v, c.a);
  _mm256_storeu_si256(v + 1, c.b);
}
template <int kShift, int kBits>
POCKETLM_INLINE __m256i field_half(__m256i c) {
  if constexpr (kShift > 0) c = _mm256_srli_epi16(c, kShift);
  if constexpr (kBits < 8) c = _mm256_and_si256(c, _mm256_set1_epi8((1 << kBits) - 1));
  return c;
}
template <int kShift, int kBits>
POCKETLM_INLINE Codes field(Codes c) { return {field_half<kShift, kBits>(c.a), field_half<kShift, kBits>(c.b)}; }
template <int kShift, int kBits, int kUp>
POCKETLM_INLINE __m256i join_half(__m256i low, __m256i c) {
  if constexpr (kShift > kUp) c = _mm256_srli_epi16(c, kShift - kUp);
  if constexpr (kShift < kUp) c = _mm256_slli_epi16(c, kUp - kShift);
  return _mm256_or_si256(low, _mm256_and_si256(c, _mm256_set1_epi8(((1 << kBits) - 1) << kUp)));
}
template <int kShift, int kBits, int kUp>
POCKETLM_INLINE Codes join(Codes low, Codes c) {
  return {join_half<kShift, kBits, kUp>(low.a, c.a), join_half<kShift, kBits, kUp>(low.b, c.b)};
}
POCKETLM_INLINE X load_x(const int8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return _mm256_set1_epi32(word);
}

// GCC would rewrite a chain of integer additions as a tree, which needs more registers than there are.
POCKETLM_INLINE void keep_order(__m256i& a, __m256i& b) { __asm__("" : "+x"(a), "+x"(b)); }

POCKETLM_INLINE __m256i widen(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

// The integer units have room where multiplications crowd, so the offset is taken off before floats begin.
template <int kOffset>
POCKETLM_INLINE F offset_total(__m256i a, __m256i b, const int32_t* x_sum) {
  if constexpr (kOffset != 0) {
    const __m256i offset = _mm256_slli_epi32(_mm256_set1_epi32(*x_sum), std::countr_zero(unsigned(kOffset)));
    a = _mm256_sub_epi32(a, offset);
    b = _mm256_sub_epi32(b, offset);
  }
  return {_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)};
}

// vpmaddubsw adds two products in 16 bits; kDepth of its results still fit there, then vpmaddwd widens them.
template <int kMax, int kCount>
struct Dot {
  static constexpr int kDepth = 32767 / (2 * 127 * kMax) < kCount ? 32767 / (2 * 127 * kMax) : kCount;
  __m256i part_a, part_b, sum_a, sum_b;

  template <int kIndex>
  POCKETLM_INLINE void add(Codes w, X x) {
    const __m256i a = _mm256_maddubs_epi16(w.a, x), b = _mm256_maddubs_epi16(w.b, x);
    part_a = kIndex % kDepth == 0 ? a : _mm256_add_epi16(part_a, a);
    part_b = kIndex % kDepth == 0 ? b : _mm256_add_epi16(part_b, b);
    keep_order(part_a, part_b);
    if constexpr (kIndex % kDepth == kDepth - 1) {
      sum_a = kIndex < kDepth ? widen(part_a) : _mm256_add_epi32(sum_a, widen(part_a));
      sum_b = kIndex < kDepth ? widen(part_b) : _mm256_add_epi32(sum_b, widen(part_b));
    }
  }
  template <int kOffset>
  POCKETLM_INLINE F total(const int32_t* x_sum) const { return offset_total<kOffset>(sum_a, sum_b, x_sum); }
};

// Codes of 8 bits do not fit vpmaddubsw, so they go back to signed: |w| (at most 128) times x with w's sign.
template <int kCount>
struct Dot<255, kCount> {
  __m256i sum_a, sum_b;

  static POCKETLM_INLINE __m256i product(__m256i code, X x) {
    const __m256i w = _mm256_xor_si256(code, _mm256_set1_epi8(-128));
    return widen(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)));
  }
  template <int kIndex>
  POCKETLM_INLINE void add(Codes w, X x) {
    const __m256i a = product(w.a, x), b = product(w.b, x);
    sum_a = kIndex == 0 ? a : _mm256_add_epi32(sum_a, a);
    sum_b = kIndex == 0 ? b : _mm256_add_epi32(sum_b, b);
    keep_order(sum_a, sum_b);
  }
  template <int kOffset>
  POCKETLM_INLINE F total(const int32_t* x_sum) const { return offset_total<kOffset>(sum_a, sum_b, x_sum); }
};

}  // namespace isa
}  // namespace
}  // namespace pocketlm
