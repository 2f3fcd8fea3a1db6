// A small program end to end: whatever the batch, the chunks, the pages and the threads, the same bits; bad programs and
// bad batches are refused.
#include "program/executor.h"

#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "tests/check.h"

using namespace pocketlm;

namespace {

constexpr int64_t kVocabulary = 50, kWidth = 32, kHeads = 4, kKvHeads = 2, kHeadDim = 8, kFfn = 64;
constexpr int64_t kWindow = 40;
constexpr int kF32 = 0;
using Ints = std::vector<int32_t>;

Weight random_weight(int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.3f);
  Vector values(size_t(rows * cols));
  for (float& v : values) v = normal(random);
  return pack_weight(kF32, rows, cols, std::as_bytes(std::span(values)), {}, 2);
}

// Two layers, the second with a window; returns the executor ready to run.
std::unique_ptr<Executor> make(int threads, const Capacity& capacity) {
  auto executor = std::make_unique<Executor>(threads);
  Program& p = executor->program;
  const int x = p.buffer(kWidth), h = p.buffer(kWidth), qkv = p.buffer((kHeads + 2 * kKvHeads) * kHeadDim),
            attended = p.buffer(kHeads * kHeadDim), gate_up = p.buffer(2 * kFfn), ffn = p.buffer(kFfn),
            last = p.buffer(kWidth), hidden = p.buffer(kWidth), logits = p.buffer(kVocabulary);
  const Vector ones(kWidth, 1.1f);
  const Weight embedding = random_weight(kVocabulary, kWidth, 1);
  const int rope = p.rope_table({1.0f, 0.3f, 0.1f, 0.03f}, {0.5f, 0.1f, 0.02f, 0.001f}, 1.0f);
  p.embed(x, embedding, 1.5f);
  for (uint32_t layer = 0; layer < 2; ++layer) {
    const uint32_t seed = 10 * (layer + 1);
    p.rms_norm(h, x, ones, 1e-5f);
    p.linear(h, {{random_weight((kHeads + 2 * kKvHeads) * kHeadDim, kWidth, seed), qkv, 0, {}}}, false, Quantize::Block);
    p.rope({qkv, rope, kHeads, kKvHeads, kHeadDim, kHeadDim, {}, Vector(kHeadDim, 1.0f), 1e-5f});
    p.attention({attended, qkv, 0, kHeads, kKvHeads, kHeadDim, layer == 1 ? kWindow : 0, 0.35f});
    p.linear(attended, {{random_weight(kWidth, kHeads * kHeadDim, seed + 1), x, 0, {}}}, true, Quantize::Block);
    p.rms_norm(h, x, ones, 1e-5f);
    p.linear(h, {{random_weight(kFfn, kWidth, seed + 2), gate_up, 0, {}}, {random_weight(kFfn, kWidth, seed + 3), gate_up, kFfn, Vector(kFfn, 0.1f)}},
             false, Quantize::Block);
    p.gated(ffn, gate_up, Activation::Silu);
    p.linear(ffn, {{random_weight(kWidth, kFfn, seed + 4), x, 0, {}}}, true, Quantize::Block);
  }
  p.select(last, x);
  p.rms_norm(hidden, last, ones, 1e-5f);
  p.linear(hidden, {{embedding, logits, 0, {}}}, false, Quantize::Fine);
  p.finish(hidden, logits);
  executor->allocate(capacity);
  return executor;
}

// The layers have tables of their own: of the full one, then of the one with a window.
struct Step {
  Ints tokens, lengths, starts, tables, variants, rows;
  int64_t width;
  Batch batch() const { return {tokens, lengths, starts, tables, variants, rows, width}; }
};

Vector run_groups(Executor& executor, const Step& step, bool hidden = false) {
  const auto out = executor.step(step.batch(), hidden);
  return {out.begin(), out.end()};
}

Step with_windowed(Step step, const Ints& tables) {
  step.tables.insert(step.tables.end(), tables.begin(), tables.end());
  return step;
}

// Both layers use the same tables.
Vector run(Executor& executor, const Step& step, bool hidden = false) {
  return run_groups(executor, with_windowed(step, step.tables), hidden);
}

bool same_bits(const Vector& a, const Vector& b, size_t a_at, size_t b_at, size_t n) {
  return std::memcmp(a.data() + a_at, b.data() + b_at, n * sizeof(float)) == 0;
}

Ints prompt(int64_t n, int32_t salt) {
  Ints tokens;
  for (int32_t i = 0; i < n; ++i) tokens.push_back((7 * i * i + 3 * i + salt) % int32_t(kVocabulary));
  return tokens;
}

Ints iota(int32_t from, int32_t n) {
  Ints values;
  for (int32_t i = 0; i < n; ++i) values.push_back(from + i);
  return values;
}

constexpr int64_t kLong = 300;  // past one partition of 256 positions

Vector whole(int threads, KvType kv, int32_t variant = 0) {
  auto executor = make(threads, {kLong, 1, kLong, {10, 10}, kv});
  return run(*executor, {prompt(kLong, 1), {kLong}, {0}, iota(0, 10), {variant}, iota(0, kLong), 10});
}

void chunks_and_threads_change_nothing(KvType kv) {
  const Vector expected = whole(1, kv);
  for (const int threads : {1, 2, 3}) {
    CHECK(same_bits(whole(threads, kv), expected, 0, 0, expected.size()));
    for (const int32_t chunk : {1, 5, 16, 33, 256}) {
      auto executor = make(threads, {256, 1, 256, {12, 10}, kv});
      const Ints tokens = prompt(kLong, 1);
      Ints table = iota(0, 10);
      std::swap(table[0], table[7]);  // pages in any order
      for (int32_t start = 0; start < kLong; start += chunk) {
        const int32_t n = std::min<int32_t>(chunk, int32_t(kLong) - start);
        const Vector got = run(*executor, {Ints(tokens.begin() + start, tokens.begin() + start + n), {n}, {start}, table, {0}, iota(0, n), 10});
        CHECK(same_bits(got, expected, 0, size_t(start * kVocabulary), got.size()));
      }
    }
  }
}

// The pages before the window are given out again and their entries made invalid: nothing reads them. With most(chunk)
// pages a table that goes round in a ring never meets a page that is still seen.
void a_layer_with_a_window_needs_only_its_pages(KvType kv) {
  const Vector expected = whole(1, kv);
  const Ints tokens = prompt(kLong, 1);
  for (const int threads : {1, 2})
    for (const int32_t chunk : {1, 16, 33, 100}) {
      const int32_t pages = (int32_t(kWindow) + chunk - 3) / int32_t(kPage) + 2;
      auto executor = make(threads, {chunk, 1, chunk, {10, pages}, kv});
      for (int32_t start = 0; start < kLong; start += chunk) {
        const int32_t n = std::min<int32_t>(chunk, int32_t(kLong) - start), first = std::max(0, start - int32_t(kWindow) + 1) / 32;
        Ints ring(10, -1);
        for (int32_t i = first; i < (start + n + 31) / 32; ++i) ring[size_t(i)] = i % pages;
        const Step step{Ints(tokens.begin() + start, tokens.begin() + start + n), {n}, {start}, iota(0, 10), {0}, iota(0, n), 10};
        const Vector got = run_groups(*executor, with_windowed(step, ring));
        CHECK(same_bits(got, expected, 0, size_t(start * kVocabulary), got.size()));
        ring[size_t(first)] = pages;  // the first entry that is read
        CHECK_THROWS(std::invalid_argument, run_groups(*executor, with_windowed(step, ring)));
      }
    }
}

void neighbours_change_nothing() {
  const Vector expected = whole(2, KvType::F16);
  auto executor = make(2, {600, 3, 3, {40, 30}, KvType::F16});
  Ints tokens = prompt(17, 9);
  for (const int32_t t : prompt(kLong, 1)) tokens.push_back(t);
  for (const int32_t t : prompt(200, 4)) tokens.push_back(t);
  Ints tables;
  for (const int32_t first : {0, 10, 20})
    for (const int32_t page : iota(first, 10)) tables.push_back(page);
  const Vector got = run(*executor, {tokens, {17, kLong, 200}, {0, 0, 0}, tables, {0, 0, 1}, {16, 17 + kLong - 1, 17 + kLong + 199}, 10});
  CHECK(same_bits(got, expected, kVocabulary, (kLong - 1) * kVocabulary, kVocabulary));
  // Then all three decode one token in one step, against the long one alone.
  const Vector together = run(*executor, {{5, 6, 7}, {1, 1, 1}, {17, kLong, 200}, tables, {0, 0, 1}, {1}, 10});
  const Vector alone = run(*executor, {{6}, {1}, {kLong}, Ints(tables.begin() + 10, tables.begin() + 20), {0}, {0}, 10});
  CHECK(same_bits(together, alone, 0, 0, kVocabulary));
}

void the_variant_chooses_the_frequencies() {
  const Vector shorter = whole(1, KvType::F32, 0), longer = whole(1, KvType::F32, 1);
  CHECK(!same_bits(shorter, longer, size_t(kVocabulary), size_t(kVocabulary), shorter.size() - kVocabulary));
}

void hidden_states_come_before_logits() {
  auto executor = make(2, {8, 1, 8, {2, 2}, KvType::F16});
  const Vector hidden = run(*executor, {prompt(8, 1), {8}, {0}, {0}, {0}, {3, 7}, 1}, true);
  CHECK(hidden.size() == 2 * kWidth);
  CHECK(run(*executor, {prompt(8, 1), {8}, {0}, {0}, {0}, {}, 1}).empty());
}

void bad_batches_are_refused() {
  auto executor = make(2, {8, 2, 2, {4, 4}, KvType::F16});
  const Step good{prompt(4, 1), {4}, {0}, {0}, {0}, {3}, 1};
  CHECK(run(*executor, good).size() == kVocabulary);
  const auto refused = [&](auto change) {
    Step step = good;
    change(step);
    CHECK_THROWS(std::invalid_argument, run(*executor, step));
  };
  refused([](Step& s) { s.tokens[0] = kVocabulary; });
  refused([](Step& s) { s.tokens[0] = -1; });
  refused([](Step& s) { s.tokens = prompt(9, 1); s.lengths = {9}; });
  refused([](Step& s) { s.lengths = {3}; });
  refused([](Step& s) { s.lengths = {-4}; });
  refused([](Step& s) { s.starts = {-1}; });
  refused([](Step& s) { s.starts = {INT32_MAX}; });
  refused([](Step& s) { s.starts = {32}; });
  refused([](Step& s) { s.tables = {4}; });
  refused([](Step& s) { s.tables = {-1}; });
  refused([](Step& s) { s.tables = {}; });
  refused([](Step& s) { s.starts = {4 * 32}; s.tables = Ints(5, 0); s.width = 5; });  // more than all pages hold
  CHECK_THROWS(std::invalid_argument, run_groups(*executor, good));  // no table of the second group
  refused([](Step& s) { s.rows = {4}; });
  refused([](Step& s) { s.rows = {0, 1, 2}; });
  refused([](Step& s) { s.variants = {}; });
}

// Two threads that step without asking each other: every call ends in a result or a refusal, and some are refused.
void a_second_step_at_a_time_is_refused() {
  auto executor = make(1, {256, 1, 1, {10, 10}, KvType::F16});
  const Step step{prompt(256, 1), {256}, {0}, iota(0, 10), {0}, {255}, 10}, both = with_windowed(step, step.tables);
  std::atomic<int> refused = 0, done = 0;
  const auto work = [&] {
    while (refused == 0 && done < 2000) {
      try {
        executor->step(both.batch(), false);
        ++done;
      } catch (const std::invalid_argument&) {
        ++refused;
      }
    }
  };
  std::jthread other(work);
  work();
  other.join();
  CHECK(refused > 0);
}

void impossible_sizes_are_refused() {
  auto executor = make(1, {8, 1, 1, {1, 1}, KvType::F16});
  for (const int64_t huge : {int64_t{1} << 40, int64_t{1} << 62, INT64_MAX})
    for (int which = 0; which < 4; ++which) {
      Capacity capacity{8, 1, 1, {1, 1}, KvType::F16};
      (which == 0 ? capacity.tokens : which == 1 ? capacity.rows : capacity.pages[size_t(which - 2)]) = huge;
      CHECK_THROWS(CapacityError, executor->requirements(capacity));
    }
  CHECK_THROWS(std::invalid_argument, executor->requirements({0, 1, 1, {1, 1}, KvType::F16}));
  CHECK_THROWS(std::invalid_argument, executor->requirements({8, 1, 1, {1, 0}, KvType::F16}));
  CHECK_THROWS(std::invalid_argument, executor->requirements({8, 1, 1, {1}, KvType::F16}));
  CHECK_THROWS(std::invalid_argument, executor->allocate({8, 1, 1, {1, 1}, KvType::F16}));
}

void bad_programs_are_refused() {
  const auto refused = [](auto build) {
    Program p;
    CHECK_THROWS(std::invalid_argument, build(p));
  };
  const Weight w = random_weight(8, 4, 1);
  refused([&](Program& p) { p.buffer(0); });
  refused([&](Program& p) { p.embed(0, w, 1); });
  refused([&](Program& p) { p.embed(p.buffer(5), w, 1); });
  refused([&](Program& p) { const int x = p.buffer(4); p.rms_norm(x, x, {1, 1, 1, 1}, 1e-5f); });
  refused([&](Program& p) { const int x = p.buffer(4); p.embed(x, w, 1); p.rms_norm(x, x, {1, 1}, 1e-5f); });
  refused([&](Program& p) { const int x = p.buffer(4), y = p.buffer(7); p.embed(x, w, 1); p.linear(x, {{w, y, 0, {}}}, false, Quantize::Block); });
  refused([&](Program& p) { const int x = p.buffer(4), y = p.buffer(8); p.embed(x, w, 1); p.linear(x, {{w, y, 0, {1}}}, false, Quantize::Block); });
  refused([&](Program& p) { const int x = p.buffer(4), y = p.buffer(8); p.embed(x, w, 1); p.linear(x, {{w, y, 0, {}}}, true, Quantize::Block); });
  refused([&](Program& p) { const int x = p.buffer(4); p.embed(x, w, 1); p.attention({x, x, 0, 2, 0, 2, 0, 1.0f}); });
  refused([&](Program& p) { const int x = p.buffer(4), y = p.buffer(4); p.embed(x, w, 1); p.select(y, x); p.add(y, x); });
  refused([&](Program& p) { const int x = p.buffer(4); p.embed(x, w, 1); p.finish(x, x); });
}

}  // namespace

int main() {
  for (const Kernels* table : runnable_kernels()) {
    select_kernels(table->name);
    chunks_and_threads_change_nothing(KvType::F16);
    a_layer_with_a_window_needs_only_its_pages(KvType::F16);
    neighbours_change_nothing();
  }
  chunks_and_threads_change_nothing(KvType::F32);
  chunks_and_threads_change_nothing(KvType::Q8);
  the_variant_chooses_the_frequencies();
  hidden_states_come_before_logits();
  bad_batches_are_refused();
  a_second_step_at_a_time_is_refused();
  impossible_sizes_are_refused();
  bad_programs_are_refused();
  return report();
}
