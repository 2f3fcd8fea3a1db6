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

#include <type_traits>

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
  float* q;       // [queries][head_dim]; for 8-bit pages rotated as their keys are
  Softmax* softmax;  // [queries]
};

// --- tiles -------------------------------------------------------------------------------------------------------

// fn(integral_constant n) for n in [1, kMost].
template <int kMost, class Fn>
POCKETLM_INLINE void dispatch(int64_t n, const Fn& fn) {
  if constexpr (kMost > 1) {
    if (n < kMost) return dispatch<kMost - 1>(n, fn);
  }
  fn(std::integral_constant<int, kMost>{});
}

// fn(first, integral_constant size) for tiles of at most kQueryTile queries, of about the same size.
template <class Fn>
POCKETLM_INLINE void query_tiles(int64_t count, const Fn& fn) {
  int64_t tiles = (count + isa::kQueryTile - 1) / isa::kQueryTile;
  for (int64_t first = 0; first < count; --tiles) {
    const int64_t size = (count - first + tiles - 1) / tiles;
    dispatch<isa::kQueryTile>(size, [&](auto n) { fn(first, n); });
    first += size;
  }
}

// How many of 1, 2 and 4 vectors a tile may hold for each query: enough sums to hide the latency of an fma, no more
// than there are registers for.
constexpr int vectors_for(int queries) {
  int vectors = 4;
  while (vectors > 1 && vectors * queries > isa::kSums) vectors /= 2;
  return vectors;
}

// Pages lie anywhere and each is short, so what hardware foresees is little: while a page is read, the same place of
// the page after the next is fetched.
inline constexpr int64_t kPagesAhead = 2;

template <class Element>
inline constexpr bool kFetches = sizeof(typename Element::Type) < sizeof(float);  // floats may be a copy in the cache

// --- scores ------------------------------------------------------------------------------------------------------

// kQueries queries [kQueries][head_dim] times the positions of the pages k[0, kPages); k[kPagesAhead, kPagesAhead + kPages) are
// fetched.
template <class Element, int kQueries, int kPages>
void score_tile(const float* q, int64_t head_dim, const typename Element::Type* const* k, float* scores) {
  isa::F sums[kQueries][2 * kPages];
  unroll<kQueries>([&](auto i) POCKETLM_INLINED {
    unroll<2 * kPages>([&](auto h) POCKETLM_INLINED { sums[i.value][h.value] = isa::set1(0); });
  });
  for (int64_t d = 0; d < head_dim; ++d) {
    if constexpr (kFetches<Element>)
      unroll<kPages>([&](auto p) POCKETLM_INLINED { __builtin_prefetch(k[kPagesAhead + p.value] + d * kPage); });
    unroll<2 * kPages>([&](auto h) POCKETLM_INLINED {
      const isa::F x = Element::load(k[h.value / 2] + d * kPage + h.value % 2 * 16);
      unroll<kQueries>([&](auto i) POCKETLM_INLINED {
        sums[i.value][h.value] = isa::fma(x, isa::set1(q[i.value * head_dim + d]), sums[i.value][h.value]);
      });
    });
  }
  unroll<kQueries>([&](auto i) POCKETLM_INLINED {
    unroll<2 * kPages>([&](auto h) POCKETLM_INLINED {
      isa::store(scores + i.value * kPartition + h.value * 16, sums[i.value][h.value]);
    });
  });
}

// `count` queries times `pages` pages; kPagesAhead pages more are only fetched.
template <class Element>
void score_pages(const float* q, int64_t head_dim, int64_t count, const typename Element::Type* const* k, int64_t pages,
                 float* scores) {
  query_tiles(count, [&](int64_t first, auto n) {
    constexpr int kPages = vectors_for(2 * n.value);
    const float* queries = q + first * head_dim;
    float* out = scores + first * kPartition;
    int64_t page = 0;
    for (; page + kPages <= pages; page += kPages)
      score_tile<Element, n.value, kPages>(queries, head_dim, k + page, out + page * kPage);
    if constexpr (kPages > 1)
      for (; page < pages; ++page) score_tile<Element, n.value, 1>(queries, head_dim, k + page, out + page * kPage);
  });
}

// --- values ------------------------------------------------------------------------------------------------------

// V of a page: [kPage][stride]. Beside an address the one `ahead` elements on is fetched.
template <class Element>
struct ValuePage {
  const typename Element::Type* v;
  int64_t stride, ahead;
};

// kQueries queries that see the same slots of a page: kVectors * 16 of their values += probabilities * V.
template <class Element, int kQueries, int kVectors>
void value_tile(Range slots, const ValuePage<Element>& page, int64_t at, const float* probabilities, float* values,
                int64_t padded) {
  isa::F sums[kQueries][kVectors];
  unroll<kQueries>([&](auto i) POCKETLM_INLINED {
    unroll<kVectors>([&](auto j) POCKETLM_INLINED {
      sums[i.value][j.value] = isa::load(values + i.value * padded + 16 * j.value);
    });
  });
  for (int64_t slot = slots.begin; slot < slots.end; ++slot) {
    const auto* v = page.v + slot * page.stride + at;
    unroll<kVectors>([&](auto j) POCKETLM_INLINED {
      if constexpr (kFetches<Element> && j.value * 16 * sizeof(*v) % 64 == 0)
        __builtin_prefetch(v + page.ahead + 16 * j.value);
      const isa::F x = Element::load(v + 16 * j.value);
      unroll<kQueries>([&](auto i) POCKETLM_INLINED {
        const isa::F p = isa::set1(probabilities[i.value * kPartition + slot]);
        sums[i.value][j.value] = isa::fma(p, x, sums[i.value][j.value]);
      });
    });
  }
  unroll<kQueries>([&](auto i) POCKETLM_INLINED {
    unroll<kVectors>([&](auto j) POCKETLM_INLINED {
      isa::store(values + i.value * padded + 16 * j.value, sums[i.value][j.value]);
    });
  });
}

template <class Element>
void value_queries(int64_t count, Range slots, const ValuePage<Element>& page, int64_t padded,
                   const float* probabilities, float* values) {
  query_tiles(count, [&](int64_t first, auto n) {
    constexpr int kVectors = vectors_for(n.value);
    const float* p = probabilities + first * kPartition;
    float* out = values + first * padded;
    int64_t d = 0;
    for (; d + 16 * kVectors <= padded; d += 16 * kVectors)
      value_tile<Element, n.value, kVectors>(slots, page, d, p, out + d, padded);
    if constexpr (kVectors > 1)
      for (; d < padded; d += 16) value_tile<Element, n.value, 1>(slots, page, d, p, out + d, padded);
  });
}

// All queries over one page. Neighbours that see the whole page go together; elsewhere only the heads of one token do.
template <class Element>
void page_values(const AttentionTile& tile, Range page, int64_t offset, const ValuePage<Element>& values,
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
      value_queries<Element>((last - t) * tile.group, {seen.begin - page.begin, seen.end - page.begin}, values,
                             work.padded, work.scores + t * tile.group * kPartition + offset,
                             work.values + t * tile.group * work.padded);
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

// Many queries: page by page, and each is converted once.
template <class Element>
void page_scores(const AttentionTile& tile, int64_t at, int64_t base, const Workspace& work) {
  // The tokens that see the page: later ones may have moved their window past it, earlier ones lie before it.
  int64_t first = 0, last = tile.tokens;
  while (first < last && visible(tile, first, {at, at + kPage}).empty()) ++first;
  while (first < last && visible(tile, last - 1, {at, at + kPage}).empty()) --last;
  const auto* k = page_data<Element>(tile, at);
  const int64_t from = first * tile.group, count = (last - first) * tile.group;
  const float* q = work.q + from * tile.head_dim;
  float* scores = work.scores + from * kPartition + (at - base);
  if constexpr (sizeof(*k) < sizeof(float)) {
    widen_k<Element>(k, tile.head_dim * kPage, work.k);
    const float* wide = work.k;
    score_pages<ElementF32>(q, tile.head_dim, count, &wide, 1, scores);
  } else {
    score_pages<Element>(q, tile.head_dim, count, &k, 1, scores);
  }
  if constexpr (kHasScales<Element>) multiply_by_scales(tile, at, 0, count, scores);
}

// Few queries: all pages at once. What a query does not see is replaced later.
template <class Element>
void all_scores(const AttentionTile& tile, Range seen, int64_t base, const Workspace& work) {
  const typename Element::Type* k[kPartition / kPage + kPagesAhead];
  const int64_t queries = tile.tokens * tile.group, begin = seen.begin / kPage * kPage;
  int64_t pages = 0;
  for (int64_t at = begin; at < seen.end; at += kPage) k[pages++] = page_data<Element>(tile, at);
  for (int64_t i = 0; i < kPagesAhead; ++i) k[pages + i] = k[smaller(i, pages - 1)] + kPage * tile.head_dim;  // V comes next
  float* scores = work.scores + (begin - base);
  score_pages<Element>(work.q, tile.head_dim, queries, k, pages, scores);
  if constexpr (kHasScales<Element>)
    for (int64_t i = 0; i < pages; ++i) multiply_by_scales(tile, begin + i * kPage, 0, queries, scores + i * kPage);
}

template <class Element>
void partition_scores(const AttentionTile& tile, Range seen, int64_t base, const Workspace& work) {
  const int64_t queries = tile.tokens * tile.group;
  if (queries <= 2 * isa::kQueryTile) return all_scores<Element>(tile, seen, base, work);
  for (int64_t at = seen.begin / kPage * kPage; at < seen.end; at += kPage) page_scores<Element>(tile, at, base, work);
}

template <class Element>
void partition_values(const AttentionTile& tile, Range seen, int64_t base, const Workspace& work) {
  const int64_t queries = tile.tokens * tile.group;
  const bool widen = (sizeof(typename Element::Type) < sizeof(float) && queries > 2 * isa::kQueryTile) ||
                     work.padded != tile.head_dim;
  for (int64_t at = seen.begin / kPage * kPage; at < seen.end; at += kPage) {
    const auto* v = page_data<Element>(tile, at) + kPage * tile.head_dim;
    // After the last pages the next partition's K.
    const int64_t later = smaller(at + kPagesAhead * kPage, tile.first_position + tile.tokens - 1);
    const auto* ahead = page_data<Element>(tile, later) + (later < base + kPartition ? kPage * tile.head_dim : 0);
    const Range page{at, at + kPage};
    if constexpr (kHasScales<Element>) multiply_by_scales(tile, at, 1, queries, work.scores + (at - base));
    if (widen) {
      widen_v<Element>(v, tile.head_dim, work.padded, work.v);
      page_values<ElementF32>(tile, page, at - base, {work.v, work.padded, 0}, work);
    } else {
      page_values<Element>(tile, page, at - base, {v, tile.head_dim, ahead - v}, work);
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

// The tile's queries one after the other.
void gather_queries(const AttentionTile& tile, float* out) {
  for (int64_t t = 0; t < tile.tokens; ++t) {
    for (int64_t g = 0; g < tile.group; ++g, out += tile.head_dim) {
      const float* q = tile.q + t * tile.q_stride + g * tile.head_dim;
      if (tile.type == KvType::Q8) rotate(q, tile.head_dim, out);
      else __builtin_memcpy(out, q, size_t(tile.head_dim) * sizeof(float));
    }
  }
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
  gather_queries(tile, work.q);
  for (int64_t p = partition_begin; p < partition_end; ++p) {
    switch (tile.type) {
      case KvType::F32: attend_partition<ElementF32>(tile, p, states, work); break;
      case KvType::F16: attend_partition<ElementF16>(tile, p, states, work); break;
      case KvType::Q8: attend_partition<ElementI8>(tile, p, states, work); break;
    }
  }
}

}  // namespace
}  // namespace pocketlm
