// GGUF blocks to panels. Bits move four bytes at a time: a row's share of a 64-byte vector is one 32-bit word, the
// codes of four columns, and in most formats the file already holds four columns in four bytes.
#include "pack/pack.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "formats/blocks.h"

namespace pocketlm {
namespace {

uint32_t load32(const void* p) {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

void store32(std::byte* p, uint32_t word) { std::memcpy(p, &word, 4); }
void store16(std::byte* p, uint16_t half) { std::memcpy(p, &half, 2); }

// Where one row of a panel goes.
struct RowWriter {
  std::byte* codes;   // of block 0, at this row's word
  std::byte* scales;  // of group 0 (row r's entry is r * entry bytes further)
  std::byte* supers;  // of super 0, at this row's f16
  int64_t row;        // 0..15
};

// The codes of one block: each source gives word(i), the codes of columns 4 i .. 4 i + 3, one in each byte.
// The low plane: 4 bits (vectors j and j + 4 in one byte) or 2 bits (vectors j, j + 2, j + 4, j + 6).
template <class Word>
void put_nibbles(std::byte* out, Word word) {
  for (int j = 0; j < 4; ++j) store32(out + 64 * j, word(j) | word(j + 4) << 4);
}

template <class Word>
void put_pairs(std::byte* out, Word word) {
  for (int j = 0; j < 2; ++j)
    store32(out + 64 * j, word(j) | word(j + 2) << 2 | word(j + 4) << 4 | word(j + 6) << 6);
}

template <class Word>
void put_bits(std::byte* out, Word word) {
  uint32_t bits = 0;
  for (int i = 0; i < 8; ++i) bits |= word(i) << i;
  store32(out, bits);
}

// --- blocks of 32 ------------------------------------------------------------------------------------------------

// The file's nibbles (low: column j, high: column j + 16) are already the pairs that a packed byte holds.
void put_file_nibbles(const uint8_t* qs, std::byte* out) {
  for (int j = 0; j < 4; ++j) store32(out + 64 * j, load32(qs + 4 * j));
}

// Bit c of qh is the fifth bit of column c; the multiplication spreads four bits over four bytes.
void put_file_fifth_bits(const uint8_t* qh, std::byte* out) {
  const uint32_t bits = load32(qh);
  put_bits(out, [bits](int i) { return ((bits >> (4 * i) & 15) * 0x00204081) & 0x01010101; });
}

void pack_block(const BlockQ4_0& b, int64_t i, const RowWriter& w) {
  put_file_nibbles(b.qs, w.codes + i * 256);
  store16(w.scales + i * 32 + w.row * 2, b.d);
}

void pack_block(const BlockQ4_1& b, int64_t i, const RowWriter& w) {
  put_file_nibbles(b.qs, w.codes + i * 256);
  store16(w.scales + i * 64 + w.row * 2, b.d);
  store16(w.scales + i * 64 + 32 + w.row * 2, b.m);
}

void pack_block(const BlockQ5_0& b, int64_t i, const RowWriter& w) {
  put_file_nibbles(b.qs, w.codes + i * 320);
  put_file_fifth_bits(b.qh, w.codes + i * 320 + 256);
  store16(w.scales + i * 32 + w.row * 2, b.d);
}

void pack_block(const BlockQ5_1& b, int64_t i, const RowWriter& w) {
  put_file_nibbles(b.qs, w.codes + i * 320);
  put_file_fifth_bits(b.qh, w.codes + i * 320 + 256);
  store16(w.scales + i * 64 + w.row * 2, b.d);
  store16(w.scales + i * 64 + 32 + w.row * 2, b.m);
}

void pack_block(const BlockQ8_0& b, int64_t i, const RowWriter& w) {
  for (int j = 0; j < 8; ++j) store32(w.codes + i * 512 + 64 * j, load32(b.qs + 4 * j) ^ 0x80808080);
  store16(w.scales + i * 32 + w.row * 2, b.d);
}

// --- super-blocks of 256 -----------------------------------------------------------------------------------------

// 2-bit codes of Q2_K, Q3_K and TQ2_0: 32 bytes hold four blocks, block b in bits 2 b, 2 b + 1.
auto pairs_of(const uint8_t* qs, int64_t block) {
  return [p = qs + 32 * (block / 4), shift = 2 * (block % 4)](int i) { return load32(p + 4 * i) >> shift & 0x03030303; };
}

// 4-bit codes of Q4_K and Q5_K: 32 bytes hold two blocks.
auto nibbles_of(const uint8_t* qs, int64_t block) {
  return [p = qs + 32 * (block / 2), shift = 4 * (block % 2)](int i) { return load32(p + 4 * i) >> shift & 0x0f0f0f0f; };
}

// High bits kept as one bit plane a block: Q3_K, Q5_K.
auto bits_of(const uint8_t* qh, int64_t block) {
  return [qh, block](int i) { return load32(qh + 4 * i) >> block & 0x01010101; };
}

void pack_block(const BlockQ2_K& b, int64_t i, const RowWriter& w) {
  for (int64_t j = 0; j < 8; ++j) put_pairs(w.codes + (8 * i + j) * 128, pairs_of(b.qs, j));
  for (int64_t g = 0; g < 16; ++g) w.scales[(16 * i + g) * 16 + w.row] = std::byte(b.scales[g]);
  store16(w.supers + i * 64, b.d);
  store16(w.supers + i * 64 + 32, b.dmin);
}

void pack_block(const BlockQ3_K& b, int64_t i, const RowWriter& w) {
  for (int64_t j = 0; j < 8; ++j) {
    put_pairs(w.codes + (8 * i + j) * 192, pairs_of(b.qs, j));
    put_bits(w.codes + (8 * i + j) * 192 + 128, bits_of(b.hmask, j));
  }
  for (int64_t g = 0; g < 16; ++g) {  // four low bits in bytes 0..7, two high bits in bytes 8..11
    const int low = b.scales[g % 8] >> (g / 8 * 4) & 15, high = b.scales[8 + g % 4] >> (g / 4 * 2) & 3;
    w.scales[(16 * i + g) * 16 + w.row] = std::byte(int8_t((low | high << 4) - 32));
  }
  store16(w.supers + i * 32, b.d);
}

// The 12 bytes of 6-bit scales and mins of Q4_K and Q5_K.
void put_scales_and_mins(const uint8_t* packed, int64_t i, const RowWriter& w) {
  for (int64_t g = 0; g < 8; ++g) {
    const int scale = g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | (packed[g - 4] >> 6) << 4;
    const int min = g < 4 ? packed[g + 4] & 63 : (packed[g + 4] >> 4) | (packed[g] >> 6) << 4;
    w.scales[(8 * i + g) * 32 + w.row] = std::byte(scale);
    w.scales[(8 * i + g) * 32 + 16 + w.row] = std::byte(min);
  }
}

void pack_block(const BlockQ4_K& b, int64_t i, const RowWriter& w) {
  for (int64_t j = 0; j < 8; ++j) put_nibbles(w.codes + (8 * i + j) * 256, nibbles_of(b.qs, j));
  put_scales_and_mins(b.scales, i, w);
  store16(w.supers + i * 64, b.d);
  store16(w.supers + i * 64 + 32, b.dmin);
}

void pack_block(const BlockQ5_K& b, int64_t i, const RowWriter& w) {
  for (int64_t j = 0; j < 8; ++j) {
    put_nibbles(w.codes + (8 * i + j) * 320, nibbles_of(b.qs, j));
    put_bits(w.codes + (8 * i + j) * 320 + 256, bits_of(b.qh, j));
  }
  put_scales_and_mins(b.scales, i, w);
  store16(w.supers + i * 64, b.d);
  store16(w.supers + i * 64 + 32, b.dmin);
}

void pack_block(const BlockQ6_K& b, int64_t i, const RowWriter& w) {
  for (int64_t j = 0; j < 8; ++j) {  // 128 columns: four blocks share 64 bytes of low nibbles and 32 of high pairs
    const uint8_t* low = b.ql + 64 * (j / 4) + 32 * (j % 2);
    const uint8_t* high = b.qh + 32 * (j / 4);
    const int64_t low_shift = 4 * (j % 4 / 2), high_shift = 2 * (j % 4);
    put_nibbles(w.codes + (8 * i + j) * 384,
                [=](int v) { return load32(low + 4 * v) >> low_shift & 0x0f0f0f0f; });
    put_pairs(w.codes + (8 * i + j) * 384 + 256,
              [=](int v) { return load32(high + 4 * v) >> high_shift & 0x03030303; });
  }
  for (int64_t g = 0; g < 16; ++g) w.scales[(16 * i + g) * 16 + w.row] = std::byte(b.scales[g]);
  store16(w.supers + i * 32, b.d);
}

void pack_block(const BlockTQ2_0& b, int64_t i, const RowWriter& w) {
  for (int64_t j = 0; j < 8; ++j) put_pairs(w.codes + (8 * i + j) * 128, pairs_of(b.qs, j));
  store16(w.supers + i * 32, b.d);
}

// I2_S has no scale in its blocks: the one of the tensor is the matrix's.
void pack_block(const BlockI2_S& b, int64_t i, const RowWriter& w) {
  constexpr uint16_t kOne = 0x3c00;
  for (int64_t j = 0; j < 4; ++j)
    put_pairs(w.codes + (4 * i + j) * 128,
              [&b, shift = 6 - 2 * j](int v) { return load32(b.qs + 4 * v) >> shift & 0x03030303; });
  store16(w.supers + i / 2 * 32, kOne);
}

// Digit n of a byte that holds base-3 digits as a fraction: q * 3^n keeps what follows digit n in its low 8 bits.
uint8_t trit(uint8_t q, int n) {
  constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  return uint8_t(uint8_t(q * kPowers[n]) * 3 >> 8);
}

void pack_block(const BlockTQ1_0& b, int64_t i, const RowWriter& w) {
  uint8_t codes[256];
  for (int n = 0; n < 5; ++n) {
    for (int m = 0; m < 32; ++m) codes[32 * n + m] = trit(b.qs[m], n);
    for (int m = 0; m < 16; ++m) codes[160 + 16 * n + m] = trit(b.qs[32 + m], n);
  }
  for (int n = 0; n < 4; ++n)
    for (int m = 0; m < 4; ++m) codes[240 + 4 * n + m] = trit(b.qh[m], n);
  for (int64_t j = 0; j < 8; ++j)
    put_pairs(w.codes + (8 * i + j) * 128, [&](int v) { return load32(codes + 32 * j + 4 * v); });
  store16(w.supers + i * 32, b.d);
}

// --- panels ------------------------------------------------------------------------------------------------------

struct Source {
  const std::byte* data;
  size_t row_bytes;
  const int32_t* row_map;

  const std::byte* row(int64_t r) const { return data + size_t(row_map ? row_map[r] : r) * row_bytes; }
};

template <class Block>
void pack_rows(const Source& source, int64_t panel, int64_t rows, PackedMatrix& out) {
  std::byte* base = out.panel(panel);
  const auto blocks = int64_t(source.row_bytes / sizeof(Block));
  for (int64_t r = 0; r < rows; ++r) {
    const RowWriter writer{base + 4 * r, base + out.scales_offset, base + out.supers_offset + 2 * r, r};
    const std::byte* p = source.row(panel * kPanel + r);
    for (int64_t i = 0; i < blocks; ++i) {
      Block block;  // blocks in a file have no alignment
      std::memcpy(&block, p + size_t(i) * sizeof(Block), sizeof(Block));
      pack_block(block, i, writer);
    }
  }
}

template <class Element>
void pack_elements(const Source& source, int64_t panel, int64_t rows, PackedMatrix& out) {
  std::byte* base = out.panel(panel);
  for (int64_t r = 0; r < rows; ++r) {
    const std::byte* p = source.row(panel * kPanel + r);
    for (int64_t k = 0; k < out.cols; ++k)
      std::memcpy(base + (k * kPanel + r) * int64_t(sizeof(Element)), p + size_t(k) * sizeof(Element), sizeof(Element));
  }
}

using PackRows = void (*)(const Source&, int64_t panel, int64_t rows, PackedMatrix&);

struct TypeEntry {
  int ggml_type;
  Layout layout;
  PackRows pack;
};

constexpr TypeEntry kTypes[] = {
    {0, Layout::F32, pack_elements<uint32_t>},      {1, Layout::F16, pack_elements<uint16_t>},
    {30, Layout::BF16, pack_elements<uint16_t>},    {2, Layout::Q4_0, pack_rows<BlockQ4_0>},
    {3, Layout::Q4_1, pack_rows<BlockQ4_1>},        {6, Layout::Q5_0, pack_rows<BlockQ5_0>},
    {7, Layout::Q5_1, pack_rows<BlockQ5_1>},        {8, Layout::Q8_0, pack_rows<BlockQ8_0>},
    {10, Layout::Q2_K, pack_rows<BlockQ2_K>},       {11, Layout::Q3_K, pack_rows<BlockQ3_K>},
    {12, Layout::Q4_K, pack_rows<BlockQ4_K>},       {13, Layout::Q5_K, pack_rows<BlockQ5_K>},
    {14, Layout::Q6_K, pack_rows<BlockQ6_K>},       {34, Layout::Ternary, pack_rows<BlockTQ1_0>},
    {35, Layout::Ternary, pack_rows<BlockTQ2_0>},   {36, Layout::Ternary, pack_rows<BlockI2_S>},
};

const TypeEntry& entry_of(int ggml_type) {
  for (const TypeEntry& entry : kTypes)
    if (entry.ggml_type == ggml_type) return entry;
  throw FormatError("tensor type " + std::to_string(ggml_type) + " cannot hold the weights of a matrix");
}

}  // namespace

Layout layout_for(int ggml_type) { return entry_of(ggml_type).layout; }

void pack_panels(int ggml_type, const std::byte* data, size_t row_bytes, const int32_t* row_map, int64_t panel_begin,
                 int64_t panel_end, PackedMatrix& out) {
  const PackRows pack = entry_of(ggml_type).pack;
  const Source source{data, row_bytes, row_map};
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const int64_t rows = std::min(kPanel, out.rows - panel * kPanel);
    if (rows < kPanel) std::memset(out.panel(panel), 0, out.panel_bytes);
    pack(source, panel, rows, out);
  }
}

}  // namespace pocketlm
