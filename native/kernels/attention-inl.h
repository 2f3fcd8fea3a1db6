// Attention over the pages of one KV head, for a tile of consecutive tokens and the query heads that share that head.
// Included like matmul-inl.h.
//
// For a query and a partition (256 positions): score = scale * sum over d ascending of fma(k_d, q_d, sum); the largest
// visible score m; p = exp(score - m), 0 where the query does not see; l = sum of p over 16 lanes (position % 16),
// ascending, then the tree; acc_d = sum over positions ascending of fma(p, v_d, acc_d). Then it is merged into the
// query's state. A slot that a query does not see is never used: its score is replaced, its value not read.
// Of 8-bit pages k and v are the codes, q is rotated, the sum over d is multiplied by the key's scale before anything
// else, and p by the value's scale after it was added to l.
#pragma once

#include "kernels/kv-inl.h"

namespace pocketlm {
namespace {

inline constexpr float kMinusInfinity = -__builtin_inff();

// Positions [begin, end).
struct Range {
  int64_t begin, end;
  bool empty() const { return begin >= end; }
};

// What token t of the tile sees of `within`.
POCKETLM_INLINE Range visible(const AttentionTile& tile, int64_t t, Range within) {
  const int64_t position = tile.first_position + t;
  const int64_t begin = tile.window > 0 ? position - tile.window + 1 : 0;
  return {larger(begin, within.begin), smaller(position + 1, within.end)};
}

POCKETLM_INLINE const float* query(const AttentionTile& tile, int64_t i) {
  return tile.q + i / tile.group * tile.q_stride + i % tile.group * tile.head_dim;
}

// The largest score of a query in a partition, and the sum of its probabilities.
struct Softmax {
  float max, sum;
};

// Where one attend call keeps what it works on; `padded` is head_dim in whole vectors.
struct Workspace {
  int64_t padded;
  float* scores;  // [queries][kPartition], then probabilities
  float* values;  // [queries][padded]
  float* k;       // [head_dim][kPage]
  float* v;       // [kPage][padded]
  float* q;       // [queries][head_dim], rotated
  Softmax* softmax;  // [queries]
};

// --- scores ------------------------------------------------------------------------------------------------------

// kQueries queries from `first` on times the 32 positions of a page.
template <class Element, int kQueries>
void score_tile(const AttentionTile& tile, int64_t first, const typename Element::Type* k, float* scores) {
  const float* q[kQueries];
  isa::F low[kQueries], high[kQueries];
  unroll<kQueries>([&](auto i) POCKETLM_INLINED {
    q[i.value] = query(tile, first + i.value);
    low[i.value] = high[i.value] = isa::set1(0);
  });
  for (int64_t d = 0; d < tile.head_dim; ++d, k += kPage) {
    const isa::F k_low = Element::load(k), k_high = Element::load(k + 16);
    unroll<kQueries>([&](auto i) POCKETLM_INLINED {
      const isa::F x = isa::set1(q[i.value][d]);
      low[i.value] = isa::fma(k_low, x, low[i.value]);
      high[i.value] = isa::fma(k_high, x, high[i.value]);
    });
  }
  unroll<kQueries>([&](auto i) POCKETLM_INLINED {
    isa::store(scores + (first + i.value) * kPartition, low[i.value]);
    isa::store(scores + (first + i.value) * kPartition + 16, high[i.value]);
  });
}

template <class Element, int kQueries>
void score_queries(const AttentionTile& tile, int64_t first, int64_t count, const typename Element::Type* k,
                   float* scores) {
  for (; count >= kQueries; first += kQueries, count -= kQueries)
    score_tile<Element, kQueries>(tile, first, k, scores);
  if constexpr (kQueries > 1) score_queries<Element, kQueries / 2>(tile, first, count, k, scores);
}

// --- values ------------------------------------------------------------------------------------------------------

// kQueries queries that see the same slots of a page: values += probabilities * V.
template <class Element, int kQueries>
void value_tile(Range slots, const typename Element::Type* v, int64_t stride, int64_t vectors, const float* probabilities,
                float* values, int64_t padded) {
  for (int64_t at = 0; at < vectors * 16; at += 16) {
    isa::F sums[kQueries];
    unroll<kQueries>([&](auto i) POCKETLM_INLINED {
      sums[i.value] = isa::load(values + i.value * padded + at);
    });
    for (int64_t slot = slots.begin; slot < slots.end; ++slot) {
      const isa::F x = Element::load(v + slot * stride + at);
      unroll<kQueries>([&](auto i) POCKETLM_INLINED {
        sums[i.value] = isa::fma(isa::set1(probabilities[i.value * kPartition + slot]), x, sums[i.value]);
      });
    }
    unroll<kQueries>([&](auto i) POCKETLM_INLINED {
      isa::store(values + i.value * padded + at, sums[i.value]);
    });
  }
}

template <class Element, int kQueries>
void value_queries(int64_t count, Range slots, const typename Element::Type* v, int64_t stride, int64_t vectors,
                   const float* probabilities, float* values, int64_t padded) {
  for (; count >= kQueries; count -= kQueries, probabilities += kQueries * kPartition, values += kQueries * padded)
    value_tile<Element, kQueries>(slots, v, stride, vectors, probabilities, values, padded);
  if constexpr (kQueries > 1)
    value_queries<Element, kQueries / 2>(count, slots, v, stride, vectors, probabilities, values, padded);
}

// All queries over one page. Neighbours that see the whole page go together; elsewhere only the heads of one token do.
template <class Element>
void page_values(const AttentionTile& tile, Range page, int64_t offset, const typename Element::Type* v, int64_t stride,
                 const Workspace& work) {
  for (int64_t t = 0; t < tile.tokens;) {
    const Range seen = visible(tile, t, page);
    int64_t last = t + 1;
    if (seen.end - seen.begin == kPage) {
      while (last < tile.tokens) {
        const Range next = visible(tile, last, page);
        if (next.end - next.begin != kPage) break;
        ++last;
      }
    }
    if (!seen.empty())
      value_queries<Element, isa::kValueTile>((last - t) * tile.group, {seen.begin - page.begin, seen.end - page.begin}, v,
                                              stride, work.padded / 16, work.scores + t * tile.group * kPartition + offset,
                                              work.values + t * tile.group * work.padded, work.padded);
    t = last;
  }
}

// --- pages -------------------------------------------------------------------------------------------------------

// count values of a page's K in f32.
template <class Element>
void widen_k(const typename Element::Type* k, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += 16) isa::store(out + i, Element::load(k + i));
}

// A page's V in f32, its rows padded with zeros to whole vectors.
template <class Element>
void widen_v(const typename Element::Type* v, int64_t head_dim, int64_t padded, float* out) {
  for (int64_t slot = 0; slot < kPage; ++slot, v += head_dim, out += padded) {
    int64_t d = 0;
    for (; d + 16 <= head_dim; d += 16) isa::store(out + d, Element::load(v + d));
    if (d < head_dim) {
      typename Element::Type tail[16] = {};
      __builtin_memcpy(tail, v + d, size_t(head_dim - d) * sizeof(tail[0]));
      isa::store(out + d, Element::load(tail));
    }
  }
}

template <class Element>
const typename Element::Type* page_data(const AttentionTile& tile, int64_t position) {
  const int32_t page = tile.pages[position / kPage];
  return reinterpret_cast<const typename Element::Type*>(tile.kv + size_t(page) * tile.page_stride);
}

template <class Element>
inline constexpr bool kHasScales = sizeof(typename Element::Type) == 1;

// x[count][kPartition] *= the scales of a page's keys (kind 0) or values (kind 1).
void multiply_by_scales(const AttentionTile& tile, int64_t position, int kind, int64_t count, float* x) {
  const auto* codes = page_data<ElementI8>(tile, position);
  const auto* scales = reinterpret_cast<const float*>(codes + 2 * kPage * tile.head_dim) + kind * kPage;
  const isa::F low = isa::load(scales), high = isa::load(scales + 16);
  for (; count > 0; --count, x += kPartition) {
    isa::store(x, isa::mul(isa::load(x), low));
    isa::store(x + 16, isa::mul(isa::load(x + 16), high));
  }
}

// Many queries share one conversion of a page; few convert as they go. Scores or values of one partition.
template <class Element>
void partition_scores(const AttentionTile& tile, Range seen, int64_t base, const Workspace& work) {
  const int64_t queries = tile.tokens * tile.group;
  const bool widen = sizeof(typename Element::Type) < sizeof(float) && queries > isa::kScoreTile;
  for (int64_t at = seen.begin / kPage * kPage; at < seen.end; at += kPage) {
    // The tokens that see the page: later ones may have moved their window past it, earlier ones lie before it.
    int64_t first = 0, last = tile.tokens;
    while (first < last && visible(tile, first, {at, at + kPage}).empty()) ++first;
    while (first < last && visible(tile, last - 1, {at, at + kPage}).empty()) --last;
    const auto* k = page_data<Element>(tile, at);
    float* scores = work.scores + (at - base);
    const int64_t from = first * tile.group, count = (last - first) * tile.group;
    if (widen) {
      widen_k<Element>(k, tile.head_dim * kPage, work.k);
      score_queries<ElementF32, isa::kScoreTile>(tile, from, count, work.k, scores);
    } else {
      score_queries<Element, isa::kScoreTile>(tile, from, count, k, scores);
    }
    if constexpr (kHasScales<Element>) multiply_by_scales(tile, at, 0, count, scores + from * kPartition);
  }
}

template <class Element>
void partition_values(const AttentionTile& tile, Range seen, int64_t base, const Workspace& work) {
  const int64_t queries = tile.tokens * tile.group;
  const bool widen = (sizeof(typename Element::Type) < sizeof(float) && queries > isa::kValueTile) ||
                     work.padded != tile.head_dim;
  for (int64_t at = seen.begin / kPage * kPage; at < seen.end; at += kPage) {
    const auto* v = page_data<Element>(tile, at) + kPage * tile.head_dim;
    const Range page{at, at + kPage};
    if constexpr (kHasScales<Element>) multiply_by_scales(tile, at, 1, queries, work.scores + (at - base));
    if (widen) {
      widen_v<Element>(v, tile.head_dim, work.padded, work.v);
      page_values<ElementF32>(tile, page, at - base, work.v, work.padded, work);
    } else {
      page_values<Element>(tile, page, at - base, v, tile.head_dim, work);
    }
  }
}

// --- softmax and states ------------------------------------------------------------------------------------------

// Scores of positions [seen.begin, seen.end) of a partition to probabilities, zero around them within whole vectors.
Softmax softmax(float* scores, Range seen, float scale) {
  const isa::F begin = isa::set1(float(seen.begin)), end = isa::set1(float(seen.end)), factor = isa::set1(scale);
  const int64_t from = seen.begin / 16 * 16;
  isa::F largest = isa::set1(kMinusInfinity);
  for (int64_t i = from; i < seen.end; i += 16) {
    const isa::F at = isa::add(isa::iota(), isa::set1(float(i)));
    isa::F s = isa::select(isa::less(at, end), isa::mul(isa::load(scores + i), factor), isa::set1(kMinusInfinity));
    s = isa::select(isa::less(at, begin), isa::set1(kMinusInfinity), s);
    isa::store(scores + i, s);
    largest = isa::max(s, largest);
  }
  const float max = isa::reduce_max(largest);
  isa::F sum = isa::set1(0);
  for (int64_t i = from; i < seen.end; i += 16) {
    const isa::F p = exp(isa::sub(isa::load(scores + i), isa::set1(max)));
    isa::store(scores + i, p);
    sum = isa::add(sum, p);
  }
  return {max, isa::reduce_add(sum)};
}

float exp_scalar(float x) {
  float lanes[16];
  isa::store(lanes, exp(isa::set1(x)));
  return lanes[0];
}

// Merges (max, sum, values) into a state; either may have seen nothing (max = -inf).
void merge_into(float* state, Softmax later, const float* values, int64_t head_dim) {
  if (later.max == kMinusInfinity) return;
  float* acc = state + 2;
  if (state[0] == kMinusInfinity) {
    state[0] = later.max;
    state[1] = later.sum;
    __builtin_memcpy(acc, values, size_t(head_dim) * sizeof(float));
    return;
  }
  const float max = state[0] > later.max ? state[0] : later.max;
  const float a = exp_scalar(state[0] - max), b = exp_scalar(later.max - max);
  state[0] = max;
  state[1] = state[1] * a + later.sum * b;
  const isa::F old_factor = isa::set1(a), new_factor = isa::set1(b);
  map(acc, values, head_dim, acc, [&](isa::F x, isa::F y) POCKETLM_INLINED {
    return isa::add(isa::mul(x, old_factor), isa::mul(y, new_factor));
  });
}

void merge(float* state, const float* later, int64_t head_dim) {
  merge_into(state, {later[0], later[1]}, later + 2, head_dim);
}

void finish(const float* state, int64_t head_dim, float* out) {
  const isa::F sum = isa::set1(state[1]);
  map(state + 2, state + 2, head_dim, out, [&](isa::F x, isa::F) POCKETLM_INLINED {
    return isa::div(x, sum);
  });
}

template <class Element>
void attend_partition(const AttentionTile& tile, int64_t partition, float* states, const Workspace& work) {
  const int64_t base = partition * kPartition, queries = tile.tokens * tile.group;
  const Range whole{base, base + kPartition};
  const Range seen{visible(tile, 0, whole).begin, visible(tile, tile.tokens - 1, whole).end};
  if (seen.empty()) return;
  partition_scores<Element>(tile, seen, base, work);
  for (int64_t q = 0; q < queries; ++q) {
    const Range range = visible(tile, q / tile.group, whole);
    work.softmax[q] = {kMinusInfinity, 0};
    if (!range.empty())
      work.softmax[q] = softmax(work.scores + q * kPartition, {range.begin - base, range.end - base}, tile.scale);
  }
  __builtin_memset(work.values, 0, size_t(queries * work.padded) * sizeof(float));
  partition_values<Element>(tile, seen, base, work);
  const int64_t state = attention_state_floats(tile.head_dim);
  for (int64_t q = 0; q < queries; ++q)
    merge_into(states + q * state, work.softmax[q], work.values + q * work.padded, tile.head_dim);
}

// The tile with its queries rotated as 8-bit keys are.
AttentionTile rotated(AttentionTile tile, float* q) {
  const int64_t queries = tile.tokens * tile.group;
  for (int64_t i = 0; i < queries; ++i) rotate(query(tile, i), tile.head_dim, q + i * tile.head_dim);
  tile.q = q;
  tile.q_stride = tile.group * tile.head_dim;
  return tile;
}

void attend(const AttentionTile& tile, int64_t partition_begin, int64_t partition_end, float* states, float* scratch) {
  const int64_t queries = tile.tokens * tile.group;
  Workspace work;
  work.padded = (tile.head_dim + 15) / 16 * 16;
  work.scores = scratch;
  work.values = work.scores + queries * kPartition;
  work.k = work.values + queries * work.padded;
  work.v = work.k + kPage * work.padded;
  work.softmax = reinterpret_cast<Softmax*>(work.v + kPage * work.padded);
  work.q = reinterpret_cast<float*>(work.softmax + queries);
  const AttentionTile used = tile.type == KvType::Q8 ? rotated(tile, work.q) : tile;
  for (int64_t p = partition_begin; p < partition_end; ++p) {
    switch (tile.type) {
      case KvType::F32: attend_partition<ElementF32>(used, p, states, work); break;
      case KvType::F16: attend_partition<ElementF16>(used, p, states, work); break;
      case KvType::Q8: attend_partition<ElementI8>(used, p, states, work); break;
    }
  }
}

}  // namespace
}  // namespace pocketlm
