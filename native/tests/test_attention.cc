// Attention against a plain softmax in double, every table against scalar, and the promises of attend: windows and
// causal edges, splitting into partitions, tiles, and slots that nobody may read.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <span>

#include "base/buffer.h"
#include "kernels/kernels.h"
#include "tests/check.h"
#include "tests/random_blocks.h"

using namespace pocketlm;

namespace {

struct Shape {
  int64_t tokens, group, head_dim, first_position, window;
  KvType type;
};

// One KV head's cache with shuffled pages; slots without a position hold NaN.
struct Cache {
  Shape shape;
  std::vector<float> q, k, v;  // [tokens][group][head_dim], [positions][head_dim] twice
  size_t page_bytes;
  std::vector<int32_t> pages;
  Buffer data;

  Cache(const Shape& s, std::mt19937& random) : shape(s) {
    const int64_t positions = s.first_position + s.tokens, count = (positions + kPage - 1) / kPage;
    q = random_floats(random, s.tokens * s.group * s.head_dim);
    k = random_floats(random, positions * s.head_dim);
    v = random_floats(random, positions * s.head_dim);
    page_bytes = kv_head_bytes(s.head_dim, s.type) + 64;
    for (int64_t i = 0; i < count; ++i) pages.push_back(int32_t(count - 1 - i));
    data = Buffer(page_bytes * size_t(count));
    std::memset(data.data(), 0xff, data.size());  // NaN in f16 and in f32, also as a scale
    for (int64_t p = 0; p < positions; ++p) store(k.data() + p * s.head_dim, v.data() + p * s.head_dim, p);
  }

  void store(const float* key, const float* value, int64_t position) {
    std::vector<float> scratch(size_t(shape.head_dim));
    runnable_kernels().front()->store_kv(key, value, shape.head_dim, position % kPage, page(position), shape.type,
                                         scratch.data());
  }

  std::byte* page(int64_t position) { return data.data() + size_t(pages[size_t(position / kPage)]) * page_bytes; }

  AttentionTile tile(int64_t first, int64_t tokens) const {
    return {.q = q.data() + first * shape.group * shape.head_dim,
            .q_stride = shape.group * shape.head_dim,
            .tokens = tokens,
            .group = shape.group,
            .head_dim = shape.head_dim,
            .first_position = shape.first_position + first,
            .window = shape.window,
            .scale = 0.4f,
            .kv = data.data(),
            .page_stride = page_bytes,
            .pages = pages.data(),
            .type = shape.type};
  }
};

std::vector<float> fresh_states(int64_t count, int64_t head_dim) {
  std::vector<float> states(size_t(count * attention_state_floats(head_dim)), 0.0f);
  for (int64_t i = 0; i < count; ++i)
    states[size_t(i * attention_state_floats(head_dim))] = -std::numeric_limits<float>::infinity();
  return states;
}

int64_t partitions(const AttentionTile& tile) { return (tile.first_position + tile.tokens - 1) / kPartition + 1; }

std::vector<float> states_of(const Kernels& table, const AttentionTile& tile, int64_t begin, int64_t end) {
  auto states = fresh_states(tile.tokens * tile.group, tile.head_dim);
  std::vector<float> scratch(size_t(attention_scratch_floats(tile.head_dim, tile.group)),
                             std::numeric_limits<float>::quiet_NaN());
  table.attend(tile, begin, end, states.data(), scratch.data());
  return states;
}

std::vector<float> finished(const Kernels& table, const std::vector<float>& states, int64_t head_dim) {
  const int64_t stride = attention_state_floats(head_dim), count = int64_t(states.size()) / stride;
  std::vector<float> out(size_t(count * head_dim));
  for (int64_t i = 0; i < count; ++i) table.finish(states.data() + i * stride, head_dim, out.data() + i * head_dim);
  return out;
}

std::vector<float> attend(const Kernels& table, const AttentionTile& tile) {
  return finished(table, states_of(table, tile, 0, partitions(tile)), tile.head_dim);
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The largest power of two that divides n; 1 below 16.
int64_t rotation_width(int64_t n) { return (n & -n) >= 16 ? n & -n : 1; }

// Each `width` of x times the Hadamard matrix of that size.
std::vector<double> rotated(std::span<const double> x, int64_t width) {
  std::vector<double> out(x.size(), 0.0);
  for (size_t i = 0; i < x.size(); ++i)
    for (size_t j = 0; j < size_t(width); ++j) {
      const size_t base = i / size_t(width) * size_t(width);
      out[i] += std::popcount((i - base) & j) % 2 ? -x[base + j] : x[base + j];
    }
  return out;
}

std::vector<double> rounded_to_codes(std::span<const double> x) {
  double largest = 0;
  for (const double value : x) largest = std::max(largest, std::abs(value));
  std::vector<double> out;
  for (const double value : x) out.push_back(largest == 0 ? 0 : std::nearbyint(value / largest * 127) * largest / 127);
  return out;
}

// What the cache holds of a vector.
std::vector<double> stored(std::span<const float> x, KvType type, bool key) {
  std::vector<double> values(x.begin(), x.end());
  if (type == KvType::F16)
    for (double& value : values) value = double(f32_from_f16(f16_from_f32(float(value))));
  if (type != KvType::Q8) return values;
  const int64_t width = key ? rotation_width(int64_t(x.size())) : 1;
  values = rotated(rounded_to_codes(rotated(values, width)), width);
  for (double& value : values) value /= double(width);
  return values;
}

void check_against_double(const Cache& cache, const std::vector<float>& out) {
  const Shape& s = cache.shape;
  const auto positions = cache.k.size() / size_t(s.head_dim);
  std::vector<std::vector<double>> keys, held;
  for (size_t p = 0; p < positions; ++p) {
    keys.push_back(stored(std::span(cache.k).subspan(p * size_t(s.head_dim), size_t(s.head_dim)), s.type, true));
    held.push_back(stored(std::span(cache.v).subspan(p * size_t(s.head_dim), size_t(s.head_dim)), s.type, false));
  }
  // Rounding in float may choose the other code next to a half: one step of 1 / 127 in one of head_dim products.
  const double tolerance = s.type == KvType::Q8 ? 4e-3 : 2e-5;
  for (int64_t i = 0; i < s.tokens * s.group; ++i) {
    const int64_t position = s.first_position + i / s.group;
    const int64_t begin = s.window > 0 ? std::max<int64_t>(0, position - s.window + 1) : 0;
    std::vector<double> scores, values(size_t(s.head_dim), 0.0);
    for (int64_t p = begin; p <= position; ++p) {
      double score = 0;
      for (int64_t d = 0; d < s.head_dim; ++d)
        score += double(cache.q[size_t(i * s.head_dim + d)]) * keys[size_t(p)][size_t(d)];
      scores.push_back(score * 0.4);
    }
    const double most = *std::ranges::max_element(scores);
    double sum = 0;
    for (int64_t p = begin; p <= position; ++p) {
      const double weight = std::exp(scores[size_t(p - begin)] - most);
      sum += weight;
      for (int64_t d = 0; d < s.head_dim; ++d)
        values[size_t(d)] += weight * held[size_t(p)][size_t(d)];
    }
    for (int64_t d = 0; d < s.head_dim; ++d)
      CHECK(std::abs(double(out[size_t(i * s.head_dim + d)]) - values[size_t(d)] / sum) < tolerance);
  }
}

// Each partition alone on a fresh state, merged in order.
std::vector<float> split(const Kernels& table, const AttentionTile& tile) {
  auto merged = states_of(table, tile, 0, 1);
  const int64_t stride = attention_state_floats(tile.head_dim);
  for (int64_t p = 1; p < partitions(tile); ++p) {
    const auto later = states_of(table, tile, p, p + 1);
    for (int64_t i = 0; i < tile.tokens * tile.group; ++i)
      table.merge(merged.data() + i * stride, later.data() + i * stride, tile.head_dim);
  }
  return finished(table, merged, tile.head_dim);
}

void test_shape(const Shape& shape, std::mt19937& random) {
  const Cache cache(shape, random);
  const AttentionTile whole = cache.tile(0, shape.tokens);
  const auto expected = attend(*runnable_kernels().front(), whole);
  check_against_double(cache, expected);
  for (const Kernels* table : runnable_kernels()) {
    CHECK(same(attend(*table, whole), expected));
    CHECK(same(split(*table, whole), expected));
    for (int64_t t = 0; t < shape.tokens; ++t) {
      const auto alone = attend(*table, cache.tile(t, 1));
      CHECK(std::memcmp(alone.data(), expected.data() + t * shape.group * shape.head_dim, alone.size() * 4) == 0);
    }
  }
}

// A token's result does not depend on what later tokens wrote, not even on NaN or infinity.
void test_later_tokens_do_not_matter(KvType type) {
  std::mt19937 random(7);
  const Shape shape{8, 3, 20, 27, 0, type};
  Cache cache(shape, random);
  const auto expected = attend(*runnable_kernels().front(), cache.tile(0, 8));
  const std::vector<float> bad_k(20, std::numeric_limits<float>::quiet_NaN()), bad_v(20, std::numeric_limits<float>::infinity());
  for (int64_t p = 31; p < 35; ++p) cache.store(bad_k.data(), bad_v.data(), p);
  for (const Kernels* table : runnable_kernels()) {
    const auto got = attend(*table, cache.tile(0, 8));
    CHECK(std::memcmp(got.data(), expected.data(), 4 * 3 * 20 * sizeof(float)) == 0);
    CHECK(std::isnan(got.back()));
  }
}

// Nor on what lies before its window, though its neighbour in the tile still sees it.
void test_what_left_the_window_does_not_matter(KvType type) {
  std::mt19937 random(9);
  const Shape shape{4, 1, 16, 63, 32, type};
  Cache cache(shape, random);
  const auto expected = attend(*runnable_kernels().front(), cache.tile(0, 4));
  const std::vector<float> bad(16, std::numeric_limits<float>::infinity());
  cache.store(bad.data(), bad.data(), 32);  // seen by token 0
  for (const Kernels* table : runnable_kernels()) {
    const auto got = attend(*table, cache.tile(0, 4));
    CHECK(std::isnan(got[0]));
    CHECK(std::memcmp(got.data() + 16, expected.data() + 16, 3 * 16 * sizeof(float)) == 0);
  }
}

// One bad value in a key or a value is seen in the result, though codes cannot say it.
void test_bad_values_are_not_hidden(KvType type) {
  for (const int64_t head_dim : {6, 64}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (const bool key : {false, true}) {
        std::mt19937 random(10);
        Cache cache({1, 1, head_dim, 40, 0, type}, random);
        cache.q[1] = 1;  // an infinite key is an infinite score
        (key ? cache.k : cache.v)[size_t(35 * head_dim + 1)] = bad;
        cache.store(cache.k.data() + 35 * head_dim, cache.v.data() + 35 * head_dim, 35);
        for (const Kernels* table : runnable_kernels()) {
          const auto got = attend(*table, cache.tile(0, 1));
          CHECK(!std::isfinite(got[1]));
        }
      }
    }
  }
}

void store_plain(const float* x, int64_t count, int64_t at, int64_t step, KvType type, std::byte* page) {
  for (int64_t d = 0; d < count; ++d, at += step) {
    const uint16_t half = f16_from_f32(x[d]);
    if (type == KvType::F16) std::memcpy(page + 2 * at, &half, 2);
    else std::memcpy(page + 4 * at, &x[d], 4);
  }
}

void test_store() {
  std::mt19937 random(8);
  for (const int64_t head_dim : {2, 16, 20, 64, 80, 256}) {
    for (const KvType type : {KvType::F16, KvType::F32, KvType::Q8}) {
      auto k = random_floats(random, head_dim), v = random_floats(random, head_dim);
      k[0] = 1e6f;  // infinite in f16
      v[1] = 3e-8f;
      std::vector<std::byte> expected;
      for (const Kernels* table : runnable_kernels()) {
        std::vector<std::byte> page(kv_head_bytes(head_dim, type), std::byte{0x55});
        std::vector<float> scratch(static_cast<size_t>(head_dim));
        auto plain = page;
        table->store_kv(k.data(), v.data(), head_dim, 5, page.data(), type, scratch.data());
        if (expected.empty()) expected = page;
        CHECK(page == expected);
        if (type == KvType::Q8) continue;
        store_plain(k.data(), head_dim, 5, kPage, type, plain.data());
        store_plain(v.data(), head_dim, (kPage + 5) * head_dim, 1, type, plain.data());
        CHECK(page == plain);
      }
    }
  }
}

// Codes and scales of 8-bit pages, said once more: halves go to the even code, other slots stay as they are.
void test_codes() {
  const std::vector<float> k{127, 2.5f, 3.5f, -2.5f, 0, -127}, v{-254, 5, 7, 254, 1, 0};
  for (const Kernels* table : runnable_kernels()) {
    std::vector<std::byte> page(kv_head_bytes(6, KvType::Q8), std::byte{0x55});
    std::vector<float> scratch(6), scales(2 * kPage);
    table->store_kv(k.data(), v.data(), 6, 31, page.data(), KvType::Q8, scratch.data());
    const auto* codes = reinterpret_cast<const int8_t*>(page.data());
    std::memcpy(scales.data(), codes + 2 * kPage * 6, scales.size() * sizeof(float));
    const std::vector<int8_t> wanted_k{127, 2, 4, -2, 0, -127}, wanted_v{-127, 2, 4, 127, 0, 0};
    for (int64_t d = 0; d < 6; ++d) {
      CHECK(codes[d * kPage + 31] == wanted_k[size_t(d)]);
      CHECK(codes[d * kPage + 30] == 0x55);
      CHECK(codes[(kPage + 31) * 6 + d] == wanted_v[size_t(d)]);
    }
    CHECK(scales[31] == 1 && scales[63] == 2);
    const std::vector<float> one(16, 1), zero(16, 0);  // rotated: 16 in the first channel
    page.assign(kv_head_bytes(16, KvType::Q8), std::byte{0x55});
    scratch.resize(16);
    table->store_kv(one.data(), zero.data(), 16, 0, page.data(), KvType::Q8, scratch.data());
    codes = reinterpret_cast<const int8_t*>(page.data());
    std::memcpy(scales.data(), codes + 2 * kPage * 16, scales.size() * sizeof(float));
    CHECK(codes[0] == 127 && codes[kPage] == 0 && codes[15 * kPage] == 0);
    CHECK(scales[0] == 1.0f / 127 && scales[kPage] == 0);
  }
}

}  // namespace

int main() {
  std::mt19937 random(5);
  for (const KvType type : {KvType::F16, KvType::F32, KvType::Q8}) {
    for (const int64_t head_dim : {2, 6, 16, 20, 64, 80, 128}) {
      test_shape({1, 1, head_dim, 0, 0, type}, random);
      test_shape({16, 3, head_dim, 40, 0, type}, random);
      test_shape({5, 1, head_dim, 300, 33, type}, random);
    }
    test_shape({1, 3, 64, 600, 0, type}, random);
    test_shape({16, 2, 32, 510, 0, type}, random);    // across a partition
    test_shape({16, 2, 32, 509, 256, type}, random);  // with a window that leaves the first one
    test_shape({13, 5, 8, 520, 7, type}, random);
    test_shape({16, 1, 4, 24, 1, type}, random);      // sees itself only
    for (int i = 0; i < 20; ++i)
      test_shape({1 + int64_t(random() % 16), 1 + int64_t(random() % 9), 2 + 2 * int64_t(random() % 20),
                  int64_t(random() % 400), int64_t(random() % 3 * (random() % 200)), type},
                 random);
    test_later_tokens_do_not_matter(type);
    test_what_left_the_window_does_not_matter(type);
    test_bad_values_are_not_hidden(type);
  }
  test_store();
  test_codes();
  return report();
}
