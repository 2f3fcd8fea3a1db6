// One row of a packed matrix back to floats: the gather of an embedding table that is kept packed.
#include "base/float16.h"
#include "pack/pack.h"

namespace pocketlm {
namespace {

// One row's view of a panel.
struct RowReader {
  const std::byte* codes;   // at this row's word of block 0
  const std::byte* scales;
  const std::byte* supers;
  int64_t row;

  uint8_t code(int64_t at) const { return uint8_t(codes[at]); }
  float half(const std::byte* from, int64_t at) const {
    uint16_t h;
    __builtin_memcpy(&h, from + at + 2 * row, 2);
    return f32_from_f16(h);
  }
  int unsigned_scale(int64_t at) const { return int(scales[at + row]); }
  int signed_scale(int64_t at) const { return int8_t(scales[at + row]); }
};

template <int kBits>
void unpack_codes(const RowReader& r, int64_t block, int* q) {
  constexpr int kLow = kBits == 8 ? 8 : kBits >= 4 ? 4 : 2;    // bits of the low plane
  constexpr int kVectors = kLow;                                // 64-byte vectors of the low plane
  const int64_t base = block * kBits * 64;
  for (int i = 0; i < 8; ++i) {
    for (int j = 0; j < 4; ++j) {
      int code = r.code(base + i % kVectors * 64 + j) >> (i / kVectors * kLow) & ((1 << kLow) - 1);
      const int64_t high = base + kVectors * 64 + j;
      if constexpr (kBits == 5 || kBits == 3) code |= (r.code(high) >> i & 1) << kLow;
      if constexpr (kBits == 6) code |= (r.code(high + i % 2 * 64) >> (i / 2 * 2) & 3) << 4;
      q[4 * i + j] = code;
    }
  }
}

// weight = d * q - m over the columns of a group, where an offset is the m that it amounts to.
template <int kBits, int kGroup, class Scale>
void unpack_blocks(const RowReader& r, int64_t cols, Scale scale, float* out) {
  int q[kBlock];
  for (int64_t block = 0; block < cols / kBlock; ++block) {
    unpack_codes<kBits>(r, block, q);
    for (int g = 0; g < kBlock / kGroup; ++g) {
      const auto [d, m, offset] = scale(block * (kBlock / kGroup) + g);
      for (int k = 0; k < kGroup; ++k) *out++ = d * float(q[g * kGroup + k] - offset) + m;
    }
  }
}

struct Affine {
  float d, m;
  int offset;
};

template <int kBits>
void unpack_offset(const RowReader& r, int64_t cols, int offset, float* out) {
  unpack_blocks<kBits, 32>(r, cols, [&](int64_t g) { return Affine{r.half(r.scales, g * 32), 0, offset}; }, out);
}

template <int kBits>
void unpack_affine(const RowReader& r, int64_t cols, float* out) {
  unpack_blocks<kBits, 32>(
      r, cols, [&](int64_t g) { return Affine{r.half(r.scales, g * 64), r.half(r.scales, g * 64 + 32), 0}; }, out);
}

template <int kBits>
void unpack_k_offset(const RowReader& r, int64_t cols, int offset, float* out) {
  unpack_blocks<kBits, 16>(
      r, cols,
      [&](int64_t g) { return Affine{r.half(r.supers, g / 16 * 32) * float(r.signed_scale(g * 16)), 0, offset}; }, out);
}

template <int kBits>
void unpack_k_affine(const RowReader& r, int64_t cols, float* out) {
  unpack_blocks<kBits, 32>(
      r, cols,
      [&](int64_t g) {
        return Affine{r.half(r.supers, g / 8 * 64) * float(r.unsigned_scale(g * 32)),
                      -(r.half(r.supers, g / 8 * 64 + 32) * float(r.unsigned_scale(g * 32 + 16))), 0};
      },
      out);
}

void unpack_q2_k(const RowReader& r, int64_t cols, float* out) {
  unpack_blocks<2, 16>(
      r, cols,
      [&](int64_t g) {
        const int both = r.unsigned_scale(g * 16);
        return Affine{r.half(r.supers, g / 16 * 64) * float(both & 15),
                      -(r.half(r.supers, g / 16 * 64 + 32) * float(both >> 4)), 0};
      },
      out);
}

void unpack_ternary(const RowReader& r, int64_t cols, float scale, float* out) {
  unpack_blocks<2, 32>(r, cols, [&](int64_t g) { return Affine{r.half(r.supers, g / 8 * 32) * scale, 0, 1}; }, out);
}

template <class Element, class ToFloat>
void unpack_elements(const std::byte* panel, int64_t row, int64_t cols, ToFloat to_float, float* out) {
  const auto* p = reinterpret_cast<const Element*>(panel) + row;
  for (int64_t k = 0; k < cols; ++k) out[k] = to_float(p[k * kPanel]);
}

}  // namespace

void unpack_row(const PackedMatrix& matrix, int64_t row, float* out) {
  const std::byte* panel = matrix.panel(row / kPanel);
  const int64_t lane = row % kPanel, cols = matrix.cols;
  const RowReader r{panel + 4 * lane, panel + matrix.scales_offset, panel + matrix.supers_offset, lane};
  switch (matrix.layout) {
    case Layout::F32: return unpack_elements<float>(panel, lane, cols, [](float x) { return x; }, out);
    case Layout::F16: return unpack_elements<uint16_t>(panel, lane, cols, f32_from_f16, out);
    case Layout::BF16: return unpack_elements<uint16_t>(panel, lane, cols, f32_from_bf16, out);
    case Layout::Q4_0: return unpack_offset<4>(r, cols, 8, out);
    case Layout::Q4_1: return unpack_affine<4>(r, cols, out);
    case Layout::Q5_0: return unpack_offset<5>(r, cols, 16, out);
    case Layout::Q5_1: return unpack_affine<5>(r, cols, out);
    case Layout::Q8_0: return unpack_offset<8>(r, cols, 128, out);
    case Layout::Q2_K: return unpack_q2_k(r, cols, out);
    case Layout::Q3_K: return unpack_k_offset<3>(r, cols, 4, out);
    case Layout::Q4_K: return unpack_k_affine<4>(r, cols, out);
    case Layout::Q5_K: return unpack_k_affine<5>(r, cols, out);
    case Layout::Q6_K: return unpack_k_offset<6>(r, cols, 32, out);
    case Layout::Ternary: return unpack_ternary(r, cols, matrix.scale, out);
  }
}

}  // namespace pocketlm
