// The table of kernels: one per instruction set, chosen once.
//
// Rules that every kernel keeps, because the engine promises bit-identical results whatever the batch:
//   - the sum over k (columns, head_dim, positions) runs in ascending order inside a lane, or over 16 fixed virtual
//     lanes (element i belongs to lane i % 16) that are then added in one fixed tree: 8 apart, 4, 2, 1;
//   - what is computed for one token does not depend on which other tokens are in the call;
//   - multiply-adds that the definition fuses are fused everywhere (scalar uses std::fma), others nowhere.
// So every instruction set gives the same bits as kernels/scalar.cc, and tests compare for equality.
// Kernels assume valid arguments; the caller has checked them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "pack/layout.h"

namespace pocketlm {

enum class Activation : uint8_t { Silu, GeluTanh, Relu2 };
enum class KvType : uint8_t { F16, F32, Q8 };

inline constexpr int64_t kPage = 32;        // positions per KV page
inline constexpr int64_t kPartition = 256;  // positions whose softmax is computed together

// A KV page holds for each KV head K as [head_dim][32 positions] and then V as [32 positions][head_dim].
// F16 and F32 are the values themselves. Q8 are codes in [-127, 127], then the f32 scales k_scale[32], v_scale[32]: one
// for each position's vector, its largest magnitude / 127, and codes are value / scale rounded half to even. Keys have
// channels that are far larger than others in every token, which would take most of the codes; so what is quantized is
// the key times a Hadamard matrix (as wide as the largest power of two that divides head_dim, from 16 on), which
// spreads them over all channels. Queries are rotated alike, which leaves their dot products: H H = width.
// k_scale includes 1 / width. NaN or infinity in a vector makes its scale NaN.
inline constexpr size_t kv_head_bytes(int64_t head_dim, KvType type) {
  const size_t values = 2 * size_t(head_dim) * kPage;
  switch (type) {
    case KvType::F32: return values * sizeof(float);
    case KvType::Q8: return values + 2 * kPage * sizeof(float);
    default: return values * sizeof(uint16_t);
  }
}

// Queries of one tile of consecutive tokens of one sequence, for all heads that share one KV head.
struct AttentionTile {
  const float* q;             // token t, head g: q + t * q_stride + g * head_dim
  int64_t q_stride;           // floats between tokens
  int64_t tokens;             // at most kAttentionTile
  int64_t group;              // query heads of this KV head
  int64_t head_dim;           // a multiple of 2
  int64_t first_position;     // of token 0; token t stands at first_position + t
  int64_t window;             // 0: all earlier positions; else position p is seen when pos - p < window
  float scale;                // of the scores
  const std::byte* kv;        // this layer's and this KV head's part of page 0
  size_t page_stride;         // bytes between pages
  const int32_t* pages;       // page of positions [32 i, 32 i + 32)
  KvType type;
};
inline constexpr int64_t kAttentionTile = 16;

// Softmax state of one query: max m, sum l, then acc[head_dim]; a fresh one has m = -inf, l = 0, acc = 0.
inline constexpr int64_t attention_state_floats(int64_t head_dim) { return head_dim + 2; }
// Scratch of one attend call, floats: per query its scores, values (head_dim padded to whole vectors), max and sum, and
// itself, and one page of K and of V in f32.
inline constexpr int64_t attention_scratch_floats(int64_t head_dim, int64_t group) {
  const int64_t padded = (head_dim + 15) / 16 * 16;
  return kAttentionTile * group * (kPartition + 2 * padded + 2) + 2 * kPage * padded;
}

struct Kernels {
  const char* name;

  // --- activations -------------------------------------------------------------------------------------------
  // x[cols] -> cols / 32 QuantizedBlocks. cols is a multiple of 32. Rounds half to even.
  void (*quantize_row)(const float* x, int64_t cols, bool per_row, std::byte* out);
  // x[cols] -> round(x * 127 / max|x|) clamped to [-128, 127], divided by (127 / max|x|): BitNet's activations,
  // for weights that are kept in floats. max|x| is at least 1e-5. In place allowed.
  void (*fake_quantize_row)(const float* x, int64_t cols, float* out);

  // --- linear: out[t, r] (+)= sum_k W[r, k] x[t, k] (+ bias[r]) -------------------------------------------------
  // For rows of panels [panel_begin, panel_end), the first of which goes to *out; rows past w.rows are not written. `x` is quantized rows
  // (quantized layouts, x_stride = quantized_row_bytes) or floats (float layouts, x_stride in bytes).
  // The order is fixed: s = sum over k ascending from 0; s *= w.scale; s += bias if given; out = accumulate ? out + s : s.
  void (*matmul[kLayoutCount])(const PackedMatrix& w, int64_t panel_begin, int64_t panel_end, const std::byte* x,
                               size_t x_stride, int64_t tokens, float* out, int64_t out_stride, const float* bias,
                               bool accumulate);

  // --- row-wise ------------------------------------------------------------------------------------------------
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);  // in place allowed
  // Rotates the first rotary_dim values of one head, halves apart: cos, sin are [rotary_dim / 2].
  void (*rope)(float* head, const float* cos, const float* sin, int64_t rotary_dim);
  void (*gated)(Activation kind, const float* gate, const float* up, int64_t n, float* out);  // act(gate) * up
  void (*add)(float* dst, const float* src, int64_t n);
  void (*scale)(float* x, float factor, int64_t n);
  void (*softcap)(float* x, float cap, int64_t n);  // cap * tanh(x / cap)

  // --- attention -----------------------------------------------------------------------------------------------
  // Writes one token's K and V (head_dim floats each) of one KV head into slot (position % 32) of its page.
  // `scratch` has room for head_dim floats.
  void (*store_kv)(const float* k, const float* v, int64_t head_dim, int64_t slot, std::byte* page, KvType type,
                   float* scratch);
  // For each partition in [partition_begin, partition_end), in order: scores, softmax and values of every query
  // over the positions of the partition that it sees, then merged into its state ([tokens][group] states).
  void (*attend)(const AttentionTile& tile, int64_t partition_begin, int64_t partition_end, float* states,
                 float* scratch);
  // Merges a later state into an earlier one: the same operations that attend uses between partitions.
  void (*merge)(float* state, const float* later, int64_t head_dim);
  // acc / l.
  void (*finish)(const float* state, int64_t head_dim, float* out);
};

// The table in use: the best that this CPU and OS can run, or the one that POCKETLM_ISA names (scalar, avx2, avx512,
// asimd, neon). Throws std::invalid_argument for a name that is unknown or cannot run here.
const Kernels& kernels();

// Every table that can run here, scalar first.
std::span<const Kernels* const> runnable_kernels();

// Replaces the table in use (tests); throws as kernels() does.
void select_kernels(std::string_view name);

}  // namespace pocketlm
