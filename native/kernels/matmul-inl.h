// Matrix times activations, one body for every instruction set and layout. Included by one translation unit per
// instruction set, after its isa header; everything has internal linkage.
//
// For a row (a lane) and a token, blocks and the groups within a block ascending, a group being the columns that share
// a scale (16 or 32; a ternary block counts as one group of 32):
//   isum = sum of code * q over the group        exact, in integers
//   f    = float(isum - offset * sum of q)       exact: below 2^24
//   acc  = fma(f, d_w * d_x, acc)
//   acc  = fma(m_w, d_x * sum of q, acc)         affine layouts only; m_w = -dmin * min for K types
// d_w is d, or d * scale for K types. At the end acc is multiplied by the matrix's scale, which is 1 but for ternary
// weights whose scale f16 cannot hold. The same for one token and for tiles, so tiles change no bit.
//
// Up to kDirectTokens tokens read the packed codes as they stream in from memory. More tokens first unpack a chunk of a
// panel into bytes that stay in the L1 cache, and use them for up to kTokenGroup tokens.
#pragma once

#include "kernels/kernels.h"
#include "kernels/weights-inl.h"

namespace pocketlm {
namespace {

// Sums of kTokens tokens with the 16 rows of a panel.
template <int kTokens>
struct Sums {
  isa::F of[kTokens];
};

// One group of one block: adds it to the sums. x is the block of token 0, the next token's is x_stride further.
template <class Fmt, int kTokens, int kGroupIndex, class Block>
POCKETLM_INLINE void add_group(const Block& w, const std::byte* x, size_t x_stride, Sums<kTokens>& sums) {
  constexpr int kVectors = 8 / Fmt::kGroups;
  isa::Dot<Fmt::kMax, kVectors> dot[kTokens];
  unroll<kVectors>([&](auto i) POCKETLM_INLINED {
    constexpr int kVector = kGroupIndex * kVectors + decltype(i)::value;
    const isa::Codes codes = w.template vector<kVector>();
    unroll<kTokens>([&](auto t) POCKETLM_INLINED {
      const auto* q = reinterpret_cast<const int8_t*>(x + t.value * x_stride);
      dot[t.value].template add<decltype(i)::value>(codes, isa::load_x(q + 4 * kVector));
    });
  });
  const isa::F d = w.scale(kGroupIndex);
  unroll<kTokens>([&](auto t) POCKETLM_INLINED {
    const auto* a = reinterpret_cast<const QuantizedBlock*>(x + t.value * x_stride);
    const isa::F f = dot[t.value].template total<Fmt::kOffset>(Fmt::kGroups == 1 ? &a->sum : a->half_sum + kGroupIndex);
    sums.of[t.value] = isa::fma(f, isa::mul(d, isa::set1(a->d)), sums.of[t.value]);
  });
  if constexpr (Fmt::kAffine) {
    const isa::F m = w.min(kGroupIndex);
    unroll<kTokens>([&](auto t) POCKETLM_INLINED {
      const auto* a = reinterpret_cast<const QuantizedBlock*>(x + t.value * x_stride);
      const float sum = Fmt::kGroups == 1 ? a->scaled_sum : a->half_scaled_sum[kGroupIndex];
      sums.of[t.value] = isa::fma(m, isa::set1(sum), sums.of[t.value]);
    });
  }
}

// The first `blocks` blocks of a panel; x points at block 0 of token 0. prefetch(b) is called before block b.
template <class Fmt, int kTokens, class Panel, class Ahead>
POCKETLM_INLINE void add_blocks(const Panel& panel, int64_t blocks, const std::byte* x, size_t x_stride,
                                Sums<kTokens>& sums, const Ahead& prefetch) {
  Sums<kTokens> local = sums;
  for (int64_t b = 0; b < blocks; ++b, x += sizeof(QuantizedBlock)) {
    prefetch(b);
    const auto block = panel.block(b);
    unroll<Fmt::kGroups>([&](auto g) POCKETLM_INLINED {
      add_group<Fmt, kTokens, g.value>(block, x, x_stride, local);
    });
  }
  sums = local;
}

// Where results go: row r of token t to out[t * stride + r - first].
struct Output {
  float* out;
  int64_t stride, first;
  const float* bias;
  bool accumulate;
  int64_t rows;
  float scale;  // of the matrix

  // The 16 sums of panel `panel` and token `token`.
  POCKETLM_INLINE void write(int64_t panel, int64_t token, isa::F s) const {
    const int64_t row = panel * kPanel, count = rows - row;
    s = isa::mul(s, isa::set1(scale));
    float* to = out + token * stride + (row - first);
    if (count >= kPanel) {
      if (bias) s = isa::add(s, isa::load(bias + row));
      isa::store(to, accumulate ? isa::add(isa::load(to), s) : s);
      return;
    }
    float values[kPanel];
    isa::store(values, s);
    for (int64_t r = 0; r < count; ++r) {
      const float value = bias ? values[r] + bias[row + r] : values[r];
      to[r] = accumulate ? to[r] + value : value;
    }
  }
};

// Tiles get smaller by halves for the tokens that are left over: 8, 4, 2, 1 or 3, 2, 1.
inline constexpr int half_tile(int tokens) { return tokens == 1 ? 0 : (tokens + 1) / 2; }

// --- few tokens: straight from the packed bytes ------------------------------------------------------------------

// Bytes between what is asked for and what is used. Two cores need that much under way to read as fast as the memory
// gives it, and it is half of a small L1 cache.
inline constexpr int64_t kAhead = 16384;

template <class Fmt, int kTokens>
void direct_tiles(const Lookahead<Fmt>& lookahead, int64_t p, const std::byte* x, size_t x_stride, int64_t token,
                  int64_t tokens, const Output& output) {
  for (; token + kTokens <= tokens; token += kTokens) {
    Sums<kTokens> sums;
    unroll<kTokens>([&](auto t) POCKETLM_INLINED { sums.of[t.value] = isa::set1(0); });
    add_blocks<Fmt, kTokens>(lookahead.panel, lookahead.blocks, x + size_t(token) * x_stride, x_stride, sums, lookahead);
    unroll<kTokens>([&](auto t) POCKETLM_INLINED { output.write(p, token + t.value, sums.of[t.value]); });
  }
  if constexpr (kTokens > 1)
    direct_tiles<Fmt, half_tile(kTokens)>(lookahead, p, x, x_stride, token, tokens, output);
}

template <class Fmt>
void matmul_direct(const PackedMatrix& w, int64_t panel_begin, int64_t panel_end, const std::byte* x, size_t x_stride,
                   int64_t tokens, const Output& output) {
  const std::byte* begin = w.panel(panel_begin);
  const int64_t first = w.panel(panel_end) - begin < kAhead ? w.panel(panel_end) - begin : kAhead;
  for (int64_t i = 0; i < first; i += 64) __builtin_prefetch(begin + i);  // what no block before them asked for
  for (int64_t p = panel_begin; p < panel_end; ++p)
    direct_tiles<Fmt, isa::kDirectTile>(Lookahead<Fmt>(w, p, panel_end, kAhead), p, x, x_stride, 0, tokens, output);
}

// --- many tokens: chunks of unpacked panels ----------------------------------------------------------------------

inline constexpr int64_t kChunk = 24;        // blocks unpacked at once: with a tile's activations they fit 32 KB of L1
inline constexpr int64_t kTokenGroup = 128;  // tokens that use them

// Adds a chunk to the sums of tokens [token, tokens).
template <class Fmt, int kTokens>
void unpacked_tiles(const std::byte* unpacked, int64_t blocks, const std::byte* x, size_t x_stride, int64_t token,
                    int64_t tokens, bool first, float* sums) {
  for (; token + kTokens <= tokens; token += kTokens) {
    float* to = sums + token * kPanel;
    Sums<kTokens> local;
    unroll<kTokens>([&](auto t) POCKETLM_INLINED {
      local.of[t.value] = first ? isa::set1(0) : isa::load(to + kPanel * t.value);
    });
    add_blocks<Fmt, kTokens>(UnpackedPanel<Fmt>{unpacked}, blocks, x + size_t(token) * x_stride, x_stride, local,
                             [](int64_t) POCKETLM_INLINED {});
    unroll<kTokens>([&](auto t) POCKETLM_INLINED { isa::store(to + kPanel * t.value, local.of[t.value]); });
  }
  if constexpr (kTokens > 1)
    unpacked_tiles<Fmt, half_tile(kTokens)>(unpacked, blocks, x, x_stride, token, tokens, first, sums);
}

template <class Fmt>
void matmul_unpacked(const PackedMatrix& w, int64_t panel_begin, int64_t panel_end, const std::byte* x, size_t x_stride,
                     int64_t tokens, const Output& output) {
  alignas(64) std::byte unpacked[kChunk * UnpackedBlock<Fmt>::kBytes];
  alignas(64) float sums[kTokenGroup * kPanel];
  const int64_t blocks = w.cols / kBlock;
  for (int64_t from = 0; from < tokens; from += kTokenGroup) {
    const int64_t count = tokens - from < kTokenGroup ? tokens - from : kTokenGroup;
    for (int64_t p = panel_begin; p < panel_end; ++p) {
      const Lookahead<Fmt> lookahead(w, p, panel_end, kChunk * int64_t(w.panel_bytes) / blocks);
      for (int64_t b = 0; b < blocks; b += kChunk) {
        const int64_t chunk = blocks - b < kChunk ? blocks - b : kChunk;
        unpack_panel(lookahead, b, b + chunk, unpacked);
        const std::byte* xb = x + size_t(from) * x_stride + size_t(b) * sizeof(QuantizedBlock);
        unpacked_tiles<Fmt, isa::kTile>(unpacked, chunk, xb, x_stride, 0, count, b == 0, sums);
      }
      for (int64_t t = 0; t < count; ++t) output.write(p, from + t, isa::load(sums + t * kPanel));
    }
  }
}

template <class Fmt>
void matmul_quantized(const PackedMatrix& w, int64_t panel_begin, int64_t panel_end, const std::byte* x,
                      size_t x_stride, int64_t tokens, float* out, int64_t out_stride, const float* bias,
                      bool accumulate) {
  const Output output{out, out_stride, panel_begin * kPanel, bias, accumulate, w.rows, w.scale};
  if (tokens <= isa::kDirectTokens) return matmul_direct<Fmt>(w, panel_begin, panel_end, x, x_stride, tokens, output);
  matmul_unpacked<Fmt>(w, panel_begin, panel_end, x, x_stride, tokens, output);
}

// --- float weights -----------------------------------------------------------------------------------------------

struct ElementF32 {
  using Type = float;
  static POCKETLM_INLINE isa::F load(const float* p) { return isa::load(p); }
};
struct ElementF16 {
  using Type = uint16_t;
  static POCKETLM_INLINE isa::F load(const uint16_t* p) { return isa::load_f16(p); }
};
struct ElementBF16 {
  using Type = uint16_t;
  static POCKETLM_INLINE isa::F load(const uint16_t* p) { return isa::load_bf16(p); }
};

// kPanels panels times kTokens tokens, k ascending: enough independent sums to hide the latency of the multiply-add.
template <class Element, int kPanels, int kTokens>
void matmul_float_tile(const PackedMatrix& w, int64_t panel, const std::byte* x, size_t x_stride, int64_t token,
                       const Output& output) {
  using Type = typename Element::Type;
  const auto* weights = reinterpret_cast<const Type*>(w.panel(panel));
  const size_t next = w.panel_bytes / sizeof(Type);
  isa::F sums[kPanels * kTokens];
  unroll<kPanels * kTokens>([&](auto i) POCKETLM_INLINED { sums[i.value] = isa::set1(0); });
  const std::byte* tokens = x + size_t(token) * x_stride;
  for (int64_t k = 0; k < w.cols; ++k, weights += kPanel, tokens += sizeof(float)) {
    unroll<kPanels>([&](auto p) POCKETLM_INLINED {
      const isa::F column = Element::load(weights + p.value * next);
      unroll<kTokens>([&](auto t) POCKETLM_INLINED {
        constexpr int i = decltype(p)::value * kTokens + decltype(t)::value;
        const float value = *reinterpret_cast<const float*>(tokens + t.value * x_stride);
        sums[i] = isa::fma(column, isa::set1(value), sums[i]);
      });
    });
  }
  unroll<kPanels>([&](auto p) POCKETLM_INLINED {
    unroll<kTokens>([&](auto t) POCKETLM_INLINED {
      output.write(panel + p.value, token + t.value, sums[p.value * kTokens + t.value]);
    });
  });
}

template <class Element, int kPanels>
void matmul_float_panels(const PackedMatrix& w, int64_t panel, const std::byte* x, size_t x_stride, int64_t tokens,
                         const Output& output) {
  int64_t t = 0;
  for (; t + isa::kFloatTile <= tokens; t += isa::kFloatTile)
    matmul_float_tile<Element, kPanels, isa::kFloatTile>(w, panel, x, x_stride, t, output);
  for (; t + 2 <= tokens; t += 2) matmul_float_tile<Element, kPanels, 2>(w, panel, x, x_stride, t, output);
  for (; t < tokens; ++t) matmul_float_tile<Element, kPanels, 1>(w, panel, x, x_stride, t, output);
}

template <class Element>
void matmul_float(const PackedMatrix& w, int64_t panel_begin, int64_t panel_end, const std::byte* x, size_t x_stride,
                  int64_t tokens, float* out, int64_t out_stride, const float* bias, bool accumulate) {
  // Activations of a token group stay in the L2 cache while the panels pass by.
  for (int64_t from = 0; from < tokens; from += kTokenGroup) {
    const int64_t count = tokens - from < kTokenGroup ? tokens - from : kTokenGroup;
    const Output group{out + from * out_stride, out_stride, panel_begin * kPanel, bias, accumulate, w.rows, w.scale};
    const std::byte* xg = x + size_t(from) * x_stride;
    int64_t p = panel_begin;
    for (; p + 2 <= panel_end; p += 2) matmul_float_panels<Element, 2>(w, p, xg, x_stride, count, group);
    for (; p < panel_end; ++p) matmul_float_panels<Element, 1>(w, p, xg, x_stride, count, group);
  }
}

}  // namespace
}  // namespace pocketlm
