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

// --- ternary: codes 0..2 ------------------------------------------------------------------------------------------------

// `digits` codes that lie `stride` apart, first one most significant, as a fraction of 3^5 in 256ths, rounded up.
inline uint8_t pack_trits(const uint8_t* codes, int stride, int digits) {
  int number = 0;
  for (int n = 0; n < 5; ++n) number = 3 * number + (n < digits ? codes[n * stride] : 0);
  return uint8_t((number * 256 + 242) / 243);
}

inline void pack(const uint8_t* codes, BlockTQ1_0& b) {
  for (int j = 0; j < 32; ++j) b.qs[j] = pack_trits(codes + j, 32, 5);
  for (int j = 0; j < 16; ++j) b.qs[32 + j] = pack_trits(codes + 160 + j, 16, 5);
  for (int j = 0; j < 4; ++j) b.qh[j] = pack_trits(codes + 240 + j, 4, 4);
}

// Bit pair i / 32 % 4 of byte i % 32 of half i / 128.
inline void pack_pairs(const uint8_t* codes, uint8_t (&qs)[64]) {
  for (int j = 0; j < 64; ++j) {
    const uint8_t* c = codes + j / 32 * 128 + j % 32;
    qs[j] = uint8_t((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | c[96] << 6);
  }
}

inline void pack(const uint8_t* codes, BlockTQ2_0& b) { pack_pairs(codes, b.qs); }

// --- super-blocks ---------------------------------------------------------------------------------------------------------

// What a super-block has beside its codes; the scales of groups as they are stored, offset included (Q3_K: + 32).
struct SuperScales {
  uint16_t d = 0, dmin = 0;
  uint8_t scale[16] = {}, min[16] = {};
};

inline void pack(const uint8_t* codes, const SuperScales& s, BlockQ2_K& b) {
  b.d = s.d;
  b.dmin = s.dmin;
  for (int j = 0; j < 16; ++j) b.scales[j] = uint8_t(s.scale[j] | s.min[j] << 4);
  pack_pairs(codes, b.qs);
}

inline void pack(const uint8_t* codes, const SuperScales& s, BlockQ3_K& b) {
  b = {};
  b.d = s.d;
  for (int j = 0; j < 16; ++j) {  // q3_k_scale reads them
    b.scales[j % 8] = uint8_t(b.scales[j % 8] | (s.scale[j] & 15) << (j / 8 * 4));
    b.scales[8 + j % 4] = uint8_t(b.scales[8 + j % 4] | s.scale[j] >> 4 << (j / 4 * 2));
  }
  pack_pairs(codes, b.qs);
  for (int i = 0; i < 256; ++i) b.hmask[i % 32] = uint8_t(b.hmask[i % 32] | (codes[i] >> 2) << (i / 32));
}

inline void pack_six_bit_pairs(const SuperScales& s, uint8_t (&out)[12]) {  // q4_k_scale_min reads them
  for (int j = 0; j < 4; ++j) {
    const int scale = s.scale[j + 4], min = s.min[j + 4];
    out[j] = uint8_t(s.scale[j] | scale >> 4 << 6);
    out[j + 4] = uint8_t(s.min[j] | min >> 4 << 6);
    out[j + 8] = uint8_t((scale & 15) | (min & 15) << 4);
  }
}

// Groups 2 g and 2 g + 1 share the bytes 32 g .. 32 g + 31.
inline void pack_group_nibbles(const uint8_t* codes, uint8_t (&qs)[128]) {
  for (int i = 0; i < 128; ++i) {
    const uint8_t* c = codes + i / 32 * 64 + i % 32;
    qs[i] = uint8_t((c[0] & 15) | c[32] << 4);
  }
}

inline void pack(const uint8_t* codes, const SuperScales& s, BlockQ4_K& b) {
  b.d = s.d;
  b.dmin = s.dmin;
  pack_six_bit_pairs(s, b.scales);
  pack_group_nibbles(codes, b.qs);
}

inline void pack(const uint8_t* codes, const SuperScales& s, BlockQ5_K& b) {
  b.d = s.d;
  b.dmin = s.dmin;
  pack_six_bit_pairs(s, b.scales);
  pack_group_nibbles(codes, b.qs);
  for (int j = 0; j < 32; ++j) {
    int bits = 0;
    for (int group = 0; group < 8; ++group) bits |= (codes[group * 32 + j] >> 4 & 1) << group;
    b.qh[j] = uint8_t(bits);
  }
}

inline void pack(const uint8_t* codes, const SuperScales& s, BlockQ6_K& b) {
  b.d = s.d;
  std::memcpy(b.scales, s.scale, 16);
  for (int j = 0; j < 128; ++j) {
    const uint8_t* c = codes + j / 64 * 128 + j % 64;
    b.ql[j] = uint8_t((c[0] & 15) | c[64] << 4);
  }
  for (int j = 0; j < 64; ++j) {
    const uint8_t* c = codes + j / 32 * 128 + j % 32;
    b.qh[j] = uint8_t(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
  }
}

}  // namespace
}  // namespace pocketlm
