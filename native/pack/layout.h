// Packed weights: the handful of layouts that the kernels read, whatever the file's block type was.
//
// A matrix [rows, cols] becomes panels of kPanel = 16 rows (the last one padded with zero rows). Every
// instruction set reads the same bytes: 16 rows are one 512-bit register of 32-bit lanes, two of 256, four of
// 128, so one lane always holds one row and a sum over k never crosses lanes. That is what makes a result
// independent of the instruction set, the batch shape and the thread count.
//
// Float layouts, per panel:    [cols][16] elements (f32, f16 or bf16).
// Quantized layouts, per panel, three streams one after the other, each 64-byte aligned:
//   codes   for each block of 32 columns, the unsigned codes of 16 rows x 32 columns. The "vector" i (0..7) of a
//           block is 64 bytes: byte 4*r + j is the code of row r, column 4*i + j (what vpdpbusd wants).
//             4 bits: 4 x 64 bytes; byte vector j holds vector j in its low and vector j+4 in its high nibble
//             2 bits: 2 x 64 bytes; byte vector j holds vectors j, j+2, j+4, j+6 in bits 0-1, 2-3, 4-5, 6-7
//             1 bit : 1 x 64 bytes; bit i is vector i
//             8 bits: 8 x 64 bytes; vector i as it is
//             5 bits = 4 + 1 bits, 6 bits = 4 + 2 bits, 3 bits = 2 + 1 bits: the low plane, then the high plane
//   scales  for each group of columns that shares a scale, 16 values (one a row), as the table below says
//   supers  for each 256 columns, 16 f16 `d` (and then 16 f16 `dmin`), for the K types only
//
//   layout   bits  group  scales of a group            weight =
//   Q4_0      4     32    f16 d[16]                    d * (q - 8)
//   Q4_1      4     32    f16 d[16], f16 m[16]         d * q + m
//   Q5_0      5     32    f16 d[16]                    d * (q - 16)
//   Q5_1      5     32    f16 d[16], f16 m[16]         d * q + m
//   Q8_0      8     32    f16 d[16]                    d * (q - 128)      (the file's int8 code plus 128)
//   Q2_K      2     16    u8 [16]: scale | min << 4    d*scale * q - dmin*min
//   Q3_K      3     16    i8 scale[16]                 d*scale * (q - 4)
//   Q4_K      4     32    u8 scale[16], u8 min[16]     d*scale * q - dmin*min
//   Q5_K      5     32    u8 scale[16], u8 min[16]     d*scale * q - dmin*min
//   Q6_K      6     16    i8 scale[16]                 d*scale * (q - 32)
//   Ternary   2    256    (none; f16 d in supers)      d * (q - 1), times the scale of the matrix
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/buffer.h"

namespace pocketlm {

inline constexpr int64_t kPanel = 16;  // rows interleaved
inline constexpr int64_t kBlock = 32;  // columns per activation scale
inline constexpr int64_t kSuper = 256; // columns per K-type super-block

enum class Layout : uint8_t { F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Ternary };
inline constexpr int kLayoutCount = 14;

inline constexpr bool is_float(Layout layout) { return layout <= Layout::BF16; }

// Facts of one layout; bytes are for all 16 rows of a panel.
struct LayoutFacts {
  const char* name;
  int64_t block_bytes;  // codes of 32 columns (float layouts: of 1 column)
  int64_t group;        // columns that share a scale; 0 for float layouts
  int64_t group_bytes;  // scales of one group
  int64_t super_bytes;  // supers of 256 columns
};

const LayoutFacts& layout_facts(Layout layout);

struct PackedMatrix {
  Layout layout = Layout::F32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t panels = 0;
  size_t scales_offset = 0;  // within a panel, from its codes
  size_t supers_offset = 0;
  size_t panel_bytes = 0;    // distance between panels, a multiple of 64
  float scale = 1;           // of all weights, on top of the blocks' own
  Buffer data;               // empty where the matrix is only planned

  size_t bytes() const;  // of all panels, there or only planned
  bool planned() const;
  const std::byte* panel(int64_t i) const;
  std::byte* panel(int64_t i);
};

// A matrix without its data: for sums of memory before any is taken. Throws std::invalid_argument when cols does not divide into blocks.
PackedMatrix plan_packed(Layout layout, int64_t rows, int64_t cols);

// The same with its memory, not initialised.
PackedMatrix make_packed(Layout layout, int64_t rows, int64_t cols);

// Activations, quantized to 8 bits in blocks of 32 columns: q = round(x / d), d = max|x| / 127 of the block (or, for
// BitNet, of the whole row). A row is cols / 32 of these, one cache line each: whatever a kernel needs of one token
// and one block is at one address.
struct alignas(64) QuantizedBlock {
  int8_t q[32];
  float d;
  int32_t sum;         // of the 32 q
  int32_t half_sum[2]; // of q[0..15] and q[16..31]
  float scaled_sum;    // d * sum
  float half_scaled_sum[2];
  float unused;
};
static_assert(sizeof(QuantizedBlock) == 64);

inline constexpr size_t quantized_row_bytes(int64_t cols) { return size_t(cols / kBlock) * sizeof(QuantizedBlock); }

}  // namespace pocketlm
