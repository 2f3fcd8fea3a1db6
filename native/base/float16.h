// f16 and bf16 to and from f32, bit exact, without instruction-set extensions.
#pragma once

#include <bit>
#include <cstdint>

namespace pocketlm {

inline float f32_from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t bits_from_f32(float x) { return std::bit_cast<uint32_t>(x); }

inline float f32_from_bf16(uint16_t h) { return f32_from_bits(uint32_t(h) << 16); }

inline float f32_from_f16(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 0x1f;
  const uint32_t mantissa = h & 0x3ff;
  if (exponent == 0x1f) return f32_from_bits(sign | 0x7f800000 | (mantissa << 13));
  if (exponent != 0) return f32_from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
  // Zero and subnormals: mantissa * 2^-24 is exact in f32.
  const float magnitude = float(mantissa) * 0x1p-24f;
  return f32_from_bits(sign | bits_from_f32(magnitude));
}

// Rounds to nearest, ties to even, as the F16C instruction does.
inline uint16_t f16_from_f32(float x) {
  const uint32_t bits = bits_from_f32(x);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));  // NaN
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);                               // overflows to infinity
  if (magnitude < 0x38800000) {                                                              // subnormal or zero
    // Adding 0.5 aligns the mantissa so that the FPU rounds at 2^-24.
    const uint32_t rounded = bits_from_f32(f32_from_bits(magnitude) + 0.5f) - bits_from_f32(0.5f);
    return uint16_t(sign | rounded);
  }
  const uint32_t odd = (magnitude >> 13) & 1;
  return uint16_t(sign | ((magnitude - 0x38000000 + 0xfff + odd) >> 13));
}

}  // namespace pocketlm
