// What the pages of the KV cache hold and how it is written; attention-inl.h reads it. Included like matmul-inl.h.
#pragma once

#include "kernels/kernels.h"
#include "kernels/matmul-inl.h"
#include "kernels/rowwise-inl.h"

namespace pocketlm {
namespace {

POCKETLM_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
POCKETLM_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

struct ElementI8 {
  using Type = int8_t;
  static POCKETLM_INLINE isa::F load(const int8_t* p) { return isa::load_i8(p); }
};

// --- rotation of 8-bit keys --------------------------------------------------------------------------------------

// The Hadamard matrix of 16: -1 where an odd number of bits of row and column meet.
struct Signs {
  alignas(64) float row[16][16];
};
constexpr Signs hadamard_signs() {
  Signs signs{};
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) signs.row[i][j] = __builtin_popcount(unsigned(i & j)) % 2 ? -1.0f : 1.0f;
  return signs;
}
constexpr Signs kSigns = hadamard_signs();

// Values that are rotated together: the largest power of two that divides head_dim; 1, so not at all, where no whole
// vector fits.
POCKETLM_INLINE int64_t rotation_width(int64_t head_dim) {
  const int64_t width = head_dim & -head_dim;
  return width >= 16 ? width : 1;
}

// out = H x for each rotation_width values, not normalized: a dot product of two rotated vectors is rotation_width
// times that of the vectors.
void rotate(const float* x, int64_t head_dim, float* out) {
  const int64_t width = rotation_width(head_dim);
  if (width == 1) {
    __builtin_memcpy(out, x, size_t(head_dim) * sizeof(float));
    return;
  }
  for (int64_t d = 0; d < head_dim; d += 16) {
    isa::F sum = isa::set1(0);
    for (int j = 0; j < 16; ++j) sum = isa::fma(isa::set1(x[d + j]), isa::load(kSigns.row[j]), sum);
    isa::store(out + d, sum);
  }
  for (int64_t half = 16; half < width; half *= 2) {
    for (int64_t d = 0; d < head_dim; d += (d + 16) % half ? 16 : half + 16) {
      const isa::F a = isa::load(out + d), b = isa::load(out + d + half);
      isa::store(out + d, isa::add(a, b));
      isa::store(out + d + half, isa::sub(a, b));
    }
  }
}

// --- writing -----------------------------------------------------------------------------------------------------

// put(d, codes of x[d, d + count), count) for every vector of x; returns the scale. NaN and infinity, which codes
// cannot say, make it NaN.
template <class Put>
float quantize_head(const float* x, int64_t head_dim, const Put& put) {
  const float largest = largest_magnitude(x, head_dim);
  const bool zero = largest < 0x1p-100f;  // as quantize_block
  const isa::F inverse = isa::set1(zero ? 0 : 127.0f / largest);
  isa::F finite = isa::set1(0);
  for (int64_t d = 0; d < head_dim; d += 16) {
    const int64_t count = smaller(16, head_dim - d);
    const isa::F values = count == 16 ? isa::load(x + d) : load_tail(x + d, count);
    int8_t codes[16];
    isa::store_i8(codes, codes_of(values, inverse));
    put(d, codes, count);
    finite = isa::add(finite, isa::mul(values, isa::set1(0)));
  }
  return (zero ? 0 : largest / 127.0f) + isa::reduce_add(finite);
}

void store_kv_q8(const float* k, const float* v, int64_t head_dim, int64_t slot, std::byte* page, float* scratch) {
  auto* codes = reinterpret_cast<int8_t*>(page);
  auto* scales = reinterpret_cast<float*>(page + 2 * kPage * head_dim);
  rotate(k, head_dim, scratch);
  const float scale = quantize_head(scratch, head_dim, [=](int64_t d, const int8_t* q, int64_t count) {
    for (int64_t i = 0; i < count; ++i) codes[(d + i) * kPage + slot] = q[i];
  });
  scales[slot] = scale / float(rotation_width(head_dim));
  scales[kPage + slot] = quantize_head(v, head_dim, [=](int64_t d, const int8_t* q, int64_t count) {
    __builtin_memcpy(codes + (kPage + slot) * head_dim + d, q, size_t(count));
  });
}

void store_kv_f16(const float* k, const float* v, int64_t head_dim, int64_t slot, std::byte* page) {
  auto* out = reinterpret_cast<uint16_t*>(page);
  for (int64_t d = 0; d < head_dim; d += 16) {
    const int64_t count = smaller(16, head_dim - d);
    uint16_t halves[16];
    isa::store_f16(halves, count == 16 ? isa::load(k + d) : load_tail(k + d, count));
    for (int64_t i = 0; i < count; ++i) out[(d + i) * kPage + slot] = halves[i];
    isa::store_f16(halves, count == 16 ? isa::load(v + d) : load_tail(v + d, count));
    __builtin_memcpy(out + (kPage + slot) * head_dim + d, halves, size_t(count) * sizeof(uint16_t));
  }
}

void store_kv_f32(const float* k, const float* v, int64_t head_dim, int64_t slot, std::byte* page) {
  auto* out = reinterpret_cast<float*>(page);
  for (int64_t d = 0; d < head_dim; ++d) out[d * kPage + slot] = k[d];
  __builtin_memcpy(out + (kPage + slot) * head_dim, v, size_t(head_dim) * sizeof(float));
}

void store_kv(const float* k, const float* v, int64_t head_dim, int64_t slot, std::byte* page, KvType type,
              float* scratch) {
  switch (type) {
    case KvType::F32: return store_kv_f32(k, v, head_dim, slot, page);
    case KvType::F16: return store_kv_f16(k, v, head_dim, slot, page);
    case KvType::Q8: return store_kv_q8(k, v, head_dim, slot, page, scratch);
  }
}

}  // namespace
}  // namespace pocketlm
