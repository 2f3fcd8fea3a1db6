// Codes and scales into the bytes of blocks (formats/blocks.h): the inverse of formats/decode.cc.
// Codes are the unsigned numbers that are stored, one byte for each weight of the block, in order.
#pragma once

#include <cstring>

#include "formats/blocks.h"

namespace pocketlm {
namespace {

inline void pack_nibbles(const uint8_t* codes, uint8_t (&qs)[16]) {
  for (int j = 0; j < 16; ++j) qs[j] = uint8_t((codes[j] & 15) | codes[j + 16] << 4);
}

// Bit j is the fifth bit of weight j.
inline void pack_fifth_bits(const uint8_t* codes, uint8_t (&qh)[4]) {
  uint32_t bits = 0;
  for (int j = 0; j < 32; ++j) bits |= uint32_t(codes[j] >> 4 & 1) << j;
  std::memcpy(qh, &bits, 4);
}

inline void pack(const uint8_t* codes, BlockQ4_0& b) { pack_nibbles(codes, b.qs); }
inline void pack(const uint8_t* codes, BlockQ4_1& b) { pack_nibbles(codes, b.qs); }
inline void pack(const uint8_t* codes, BlockQ5_0& b) {
  pack_nibbles(codes, b.qs);
  pack_fifth_bits(codes, b.qh);
}
inline void pack(const uint8_t* codes, BlockQ5_1& b) {
  pack_nibbles(codes, b.qs);
  pack_fifth_bits(codes, b.qh);
}
// Signed bytes as they are: their code is the number modulo 256.
inline void pack(const uint8_t* codes, BlockQ8_0& b) { std::memcpy(b.qs, codes, 32); }

}  // namespace
}  // namespace pocketlm
