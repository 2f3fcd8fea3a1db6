// The vector layer (see isa/scalar.h) on Arm's 64-bit CPUs: four registers are 16 lanes. Compiled twice: with the dot
// product of ARMv8.2 ("neon") and without it ("asimd"), as a Cortex-A72 is.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#define POCKETLM_INLINED __attribute__((always_inline))
#define POCKETLM_INLINE inline POCKETLM_INLINED

namespace pocketlm {
namespace {
namespace isa {

#ifdef __ARM_FEATURE_DOTPROD
inline constexpr const char* kName = "neon";
inline constexpr int kTile = 3;
#else
inline constexpr const char* kName = "asimd";
inline constexpr int kTile = 2;  // sums take twice the registers
#endif
inline constexpr int kDirectTile = 2;
inline constexpr int kDirectTokens = 4;
inline constexpr int kFloatTile = 2;
inline constexpr int kQueryTile = 3;
inline constexpr int kSums = 6;
inline constexpr int kByteOffset = 0;  // Dot<255> works on signed codes

struct F { float32x4_t v[4]; };
struct M { uint32x4_t v[4]; };

template <class Fn>
POCKETLM_INLINE F quarters(const Fn& fn) { return {{fn(0), fn(1), fn(2), fn(3)}}; }

POCKETLM_INLINE F set1(float x) { return quarters([=](int) POCKETLM_INLINED { return vdupq_n_f32(x); }); }
POCKETLM_INLINE F iota() {
  const float32x4_t first = {0, 1, 2, 3};
  return quarters([=](int i) POCKETLM_INLINED { return vaddq_f32(first, vdupq_n_f32(float(4 * i))); });
}
POCKETLM_INLINE F load(const float* p) { return quarters([=](int i) POCKETLM_INLINED { return vld1q_f32(p + 4 * i); }); }
POCKETLM_INLINE F load_f16(const uint16_t* p) {
  return quarters([=](int i) POCKETLM_INLINED { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}
POCKETLM_INLINE F load_bf16(const uint16_t* p) {
  return quarters([=](int i) POCKETLM_INLINED { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}
POCKETLM_INLINE F f_from_u8(uint8x16_t b) {
  const uint16x8_t low = vmovl_u8(vget_low_u8(b)), high = vmovl_u8(vget_high_u8(b));
  return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
           vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)))}};
}
POCKETLM_INLINE F load_u8(const uint8_t* p) { return f_from_u8(vld1q_u8(p)); }
POCKETLM_INLINE F load_i8(const int8_t* p) {
  const int8x16_t b = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(b)), high = vmovl_s8(vget_high_s8(b));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
POCKETLM_INLINE F load_low_nibbles(const uint8_t* p) { return f_from_u8(vandq_u8(vld1q_u8(p), vdupq_n_u8(15))); }
POCKETLM_INLINE F load_high_nibbles(const uint8_t* p) { return f_from_u8(vshrq_n_u8(vld1q_u8(p), 4)); }
POCKETLM_INLINE void store(float* p, F x) { for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]); }
POCKETLM_INLINE void store_f16(uint16_t* p, F x) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
}
POCKETLM_INLINE void store_i8(int8_t* p, F x) {
  const int16x8_t low = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.v[0])), vqmovn_s32(vcvtnq_s32_f32(x.v[1])));
  const int16x8_t high = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.v[2])), vqmovn_s32(vcvtnq_s32_f32(x.v[3])));
  vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}

POCKETLM_INLINE F add(F a, F b) { return quarters([&](int i) POCKETLM_INLINED { return vaddq_f32(a.v[i], b.v[i]); }); }
POCKETLM_INLINE F sub(F a, F b) { return quarters([&](int i) POCKETLM_INLINED { return vsubq_f32(a.v[i], b.v[i]); }); }
POCKETLM_INLINE F mul(F a, F b) { return quarters([&](int i) POCKETLM_INLINED { return vmulq_f32(a.v[i], b.v[i]); }); }
POCKETLM_INLINE F div(F a, F b) { return quarters([&](int i) POCKETLM_INLINED { return vdivq_f32(a.v[i], b.v[i]); }); }
POCKETLM_INLINE F fma(F a, F b, F c) {
  return quarters([&](int i) POCKETLM_INLINED { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
// Not vmaxq and vminq: those answer NaN differently from x86.
POCKETLM_INLINE F max(F a, F b) {
  return quarters([&](int i) POCKETLM_INLINED { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
POCKETLM_INLINE F min(F a, F b) {
  return quarters([&](int i) POCKETLM_INLINED { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
POCKETLM_INLINE F abs(F a) { return quarters([&](int i) POCKETLM_INLINED { return vabsq_f32(a.v[i]); }); }
POCKETLM_INLINE F round(F a) { return quarters([&](int i) POCKETLM_INLINED { return vrndnq_f32(a.v[i]); }); }
POCKETLM_INLINE F copysign(F a, F sign) {
  const uint32x4_t bit = vdupq_n_u32(0x80000000);
  return quarters([&](int i) POCKETLM_INLINED { return vbslq_f32(bit, sign.v[i], a.v[i]); });
}
POCKETLM_INLINE F pow2(F n) {
  return quarters([&](int i) POCKETLM_INLINED {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23));
  });
}

POCKETLM_INLINE M less(F a, F b) {
  return {{vcltq_f32(a.v[0], b.v[0]), vcltq_f32(a.v[1], b.v[1]), vcltq_f32(a.v[2], b.v[2]), vcltq_f32(a.v[3], b.v[3])}};
}
POCKETLM_INLINE F select(M m, F yes, F no) {
  return quarters([&](int i) POCKETLM_INLINED { return vbslq_f32(m.v[i], yes.v[i], no.v[i]); });
}

POCKETLM_INLINE float reduce_add(F x) {
  const float32x4_t a = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
  const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
  return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}
POCKETLM_INLINE float reduce_max(F x) {
  float lanes[16];
  store(lanes, x);
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) lanes[i] = lanes[i] > lanes[i + step] ? lanes[i] : lanes[i + step];
  return lanes[0];
}

struct Codes { uint8x16_t v[4]; };
using X = int8x16_t;

template <class Fn>
POCKETLM_INLINE Codes code_quarters(const Fn& fn) { return {{fn(0), fn(1), fn(2), fn(3)}}; }

POCKETLM_INLINE Codes load_codes(const std::byte* p) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(p);
  return code_quarters([=](int i) POCKETLM_INLINED { return vld1q_u8(bytes + 16 * i); });
}
POCKETLM_INLINE void store_codes(std::byte* p, Codes c) {
  for (int i = 0; i < 4; ++i) vst1q_u8(reinterpret_cast<uint8_t*>(p) + 16 * i, c.v[i]);
}
template <int kShift, int kBits>
POCKETLM_INLINE Codes field(Codes c) {
  return code_quarters([&](int i) POCKETLM_INLINED {
    uint8x16_t x = c.v[i];
    if constexpr (kShift > 0) x = vshrq_n_u8(x, kShift);
    if constexpr (kShift + kBits < 8) x = vandq_u8(x, vdupq_n_u8((1 << kBits) - 1));
    return x;
  });
}
template <int kShift, int kBits, int kUp>
POCKETLM_INLINE Codes join(Codes low, Codes c) {
  return code_quarters([&](int i) POCKETLM_INLINED {
    uint8x16_t x = c.v[i];
    if constexpr (kShift > kUp) x = vshrq_n_u8(x, kShift - kUp);
    if constexpr (kShift < kUp) x = vshlq_n_u8(x, kUp - kShift);
    return vorrq_u8(low.v[i], vandq_u8(x, vdupq_n_u8(((1 << kBits) - 1) << kUp)));
  });
}
POCKETLM_INLINE X load_x(const int8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

// Four words' sums of products.
#ifdef __ARM_FEATURE_DOTPROD
struct Words {
  int32x4_t sum = vdupq_n_s32(0);
  POCKETLM_INLINE void add(int8x16_t a, int8x16_t b) { sum = vdotq_s32(sum, a, b); }
  POCKETLM_INLINE int32x4_t total() const { return sum; }
};
#else
struct Words {
  int32x4_t low = vdupq_n_s32(0), high = vdupq_n_s32(0);  // of two words each, in halves
  POCKETLM_INLINE void add(int8x16_t a, int8x16_t b) {
    low = vpadalq_s16(low, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    high = vpadalq_s16(high, vmull_high_s8(a, b));
  }
  POCKETLM_INLINE int32x4_t total() const { return vpaddq_s32(low, high); }
};
#endif

template <int kMax, int kCount>
struct Dot {
  Words words[4];

  template <int kIndex>
  POCKETLM_INLINE void add(const Codes& w, X x) {
    for (int i = 0; i < 4; ++i) {
      uint8x16_t code = w.v[i];
      if constexpr (kMax > 127) code = veorq_u8(code, vdupq_n_u8(0x80));  // back to signed
      words[i].add(vreinterpretq_s8_u8(code), x);
    }
  }
  template <int kOffset>
  POCKETLM_INLINE F total(const int32_t* x_sum) const {
    const int32x4_t offset = vdupq_n_s32(kOffset * *x_sum);
    return quarters([&](int i) POCKETLM_INLINED {
      const int32x4_t sum = words[i].total();
      return vcvtq_f32_s32(kOffset == 0 ? sum : vsubq_s32(sum, offset));
    });
  }
};

}  // namespace isa
}  // namespace
}  // namespace pocketlm
