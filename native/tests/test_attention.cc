// Attention against a plain softmax in double, every table against scalar, and the promises of attend: windows and
// causal edges, splitting into partitions, tiles, and slots that nobody may read.
#include <algorithm>
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
    const size_t element = s.type == KvType::F16 ? 2 : 4;
    page_bytes = size_t(2 * kPage * s.head_dim) * element + 64;
    for (int64_t i = 0; i < count; ++i) pages.push_back(int32_t(count - 1 - i));
    data = Buffer(page_bytes * size_t(count));
    std::memset(data.data(), 0xff, data.size());  // NaN in f16 and in f32
    for (int64_t p = 0; p < positions; ++p)
      runnable_kernels().front()->store_kv(k.data() + p * s.head_dim, v.data() + p * s.head_dim, s.head_dim, p % kPage,
                                           page(p), s.type);
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

// What a slot of the cache holds of a value.
float stored(float x, KvType type) { return type == KvType::F16 ? f32_from_f16(f16_from_f32(x)) : x; }

void check_against_double(const Cache& cache, const std::vector<float>& out) {
  const Shape& s = cache.shape;
  for (int64_t i = 0; i < s.tokens * s.group; ++i) {
    const int64_t position = s.first_position + i / s.group;
    const int64_t begin = s.window > 0 ? std::max<int64_t>(0, position - s.window + 1) : 0;
    std::vector<double> scores, values(size_t(s.head_dim), 0.0);
    for (int64_t p = begin; p <= position; ++p) {
      double score = 0;
      for (int64_t d = 0; d < s.head_dim; ++d)
        score += double(cache.q[size_t(i * s.head_dim + d)]) * double(stored(cache.k[size_t(p * s.head_dim + d)], s.type));
      scores.push_back(score * 0.4);
    }
    const double most = *std::ranges::max_element(scores);
    double sum = 0;
    for (int64_t p = begin; p <= position; ++p) {
      const double weight = std::exp(scores[size_t(p - begin)] - most);
      sum += weight;
      for (int64_t d = 0; d < s.head_dim; ++d)
        values[size_t(d)] += weight * double(stored(cache.v[size_t(p * s.head_dim + d)], s.type));
    }
    for (int64_t d = 0; d < s.head_dim; ++d)
      CHECK(std::abs(double(out[size_t(i * s.head_dim + d)]) - values[size_t(d)] / sum) < 2e-5);
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
void test_later_tokens_do_not_matter() {
  std::mt19937 random(7);
  const Shape shape{8, 3, 20, 27, 0, KvType::F16};
  Cache cache(shape, random);
  const auto expected = attend(*runnable_kernels().front(), cache.tile(0, 8));
  const std::vector<float> bad_k(20, std::numeric_limits<float>::quiet_NaN()), bad_v(20, std::numeric_limits<float>::infinity());
  for (int64_t p = 31; p < 35; ++p)
    runnable_kernels().front()->store_kv(bad_k.data(), bad_v.data(), 20, p % kPage, cache.page(p), shape.type);
  for (const Kernels* table : runnable_kernels()) {
    const auto got = attend(*table, cache.tile(0, 8));
    CHECK(std::memcmp(got.data(), expected.data(), 4 * 3 * 20 * sizeof(float)) == 0);
    CHECK(std::isnan(got.back()));
  }
}

// Nor on what lies before its window, though its neighbour in the tile still sees it.
void test_what_left_the_window_does_not_matter() {
  std::mt19937 random(9);
  const Shape shape{4, 1, 16, 63, 32, KvType::F16};
  Cache cache(shape, random);
  const auto expected = attend(*runnable_kernels().front(), cache.tile(0, 4));
  const std::vector<float> bad(16, std::numeric_limits<float>::infinity());
  runnable_kernels().front()->store_kv(bad.data(), bad.data(), 16, 0, cache.page(32), shape.type);  // seen by token 0
  for (const Kernels* table : runnable_kernels()) {
    const auto got = attend(*table, cache.tile(0, 4));
    CHECK(std::isnan(got[0]));
    CHECK(std::memcmp(got.data() + 16, expected.data() + 16, 3 * 16 * sizeof(float)) == 0);
  }
}

void test_store() {
  std::mt19937 random(8);
  for (const int64_t head_dim : {2, 16, 20, 64}) {
    for (const KvType type : {KvType::F16, KvType::F32}) {
      const size_t bytes = size_t(2 * kPage * head_dim) * (type == KvType::F16 ? 2 : 4);
      auto k = random_floats(random, head_dim), v = random_floats(random, head_dim);
      k[0] = 1e6f;  // infinite in f16
      v[1] = 3e-8f;
      for (const Kernels* table : runnable_kernels()) {
        std::vector<std::byte> page(bytes, std::byte{0x55}), expected = page;
        table->store_kv(k.data(), v.data(), head_dim, 5, page.data(), type);
        for (int64_t d = 0; d < head_dim; ++d) {
          for (const auto& [at, x] : {std::pair{d * kPage + 5, k[size_t(d)]}, {(kPage + 5) * head_dim + d, v[size_t(d)]}}) {
            const uint16_t half = f16_from_f32(x);
            if (type == KvType::F16) std::memcpy(expected.data() + 2 * at, &half, 2);
            else std::memcpy(expected.data() + 4 * at, &x, 4);
          }
        }
        CHECK(page == expected);
      }
    }
  }
}

}  // namespace

int main() {
  std::mt19937 random(5);
  for (const KvType type : {KvType::F16, KvType::F32}) {
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
  }
  test_later_tokens_do_not_matter();
  test_what_left_the_window_does_not_matter();
  test_store();
  return report();
}
