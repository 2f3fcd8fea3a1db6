// The 6-bit scales of the K types, twelve bytes for a super-block (ggml-quants.c).
#pragma once

#include <cstdint>

namespace pocketlm {

struct ScaleMin {
  uint8_t scale, min;  // 0..63
};

// Q4_K and Q5_K: scale and min of group 0..7. The first four have their six bits together; of the others, four bits lie
// in bytes 8..11 and two in the top of the first eight bytes.
inline ScaleMin q4_k_scale_min(const uint8_t (&s)[12], int group) {
  if (group < 4) return {uint8_t(s[group] & 63), uint8_t(s[group + 4] & 63)};
  return {uint8_t((s[group + 4] & 15) | (s[group - 4] >> 6 << 4)), uint8_t((s[group + 4] >> 4) | (s[group] >> 6 << 4))};
}

// Q3_K: scale of group 0..15, -32..31: four bits in bytes 0..7, two in bytes 8..11.
inline int q3_k_scale(const uint8_t (&s)[12], int group) {
  const int low = group < 8 ? s[group] & 15 : s[group - 8] >> 4;
  const int high = (s[8 + group % 4] >> (group / 4 * 2)) & 3;
  return (low | high << 4) - 32;
}

}  // namespace pocketlm
