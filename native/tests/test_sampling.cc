// The sampler under the sanitizers: known answers of the generator, ties, bans, and rows that are not
// multiples of anything. Statistics and the comparison with a slow reference are in tests/native.
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "base/thread_pool.h"
#include "check.h"
#include "sampling/draw.h"
#include "sampling/logits.h"
#include "sampling/philox.h"
#include "sampling/sampler.h"

using namespace pocketlm;

namespace {

std::vector<float> noise(size_t size, uint64_t seed) {
  std::vector<float> logits(size);
  for (size_t i = 0; i < size; ++i) logits[i] = static_cast<float>(uniform(seed, i) * 20.0 - 10.0);
  return logits;
}

void test_philox() {
  // Known answers published with Random123 (kat_vectors, philox4x32 10).
  CHECK((philox4x32({0, 0, 0, 0}, {0, 0}) ==
         std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  CHECK((philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
         std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  CHECK((philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
         std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

void test_exp() {
  std::vector<float> logits;
  for (int i = 0; i <= 8700; ++i) logits.push_back(-0.01f * static_cast<float>(i));
  std::vector<float> weights(logits.size());
  exp_weights(logits, 0.0f, 1.0f, weights);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double exact = std::exp(static_cast<double>(logits[i]));
    CHECK(std::abs(weights[i] - exact) <= 3e-7 * exact);
  }
}

void test_every_size_and_filter() {
  for (size_t size : {1, 2, 15, 16, 17, 63, 64, 65, 1000, 1025, 5000}) {
    const auto logits = noise(size, size);
    for (int32_t top_k : {0, 1, 40, 100000})
      for (float p : {1.0f, 0.5f, 1e-6f})
        for (float min_p : {0.0f, 0.05f, 1.0f}) {
          Sampler sampler({.top_k = top_k, .top_p = p, .min_p = min_p, .typical_p = p}, size);
          const Choice choice = sampler.sample(logits, 7);
          CHECK(choice.id >= 0 && static_cast<size_t>(choice.id) < size);
        }
    Sampler greedy({.temperature = 0.0f, .logprobs = 20}, size);
    const Choice best = greedy.sample(logits, 0);
    CHECK(best.best.front().id == best.id && best.best.size() == std::min<size_t>(size, 20));
    CHECK(best.best.front().logprob == best.logprob);
  }
}

void test_ties() {
  const std::vector<float> flat(300, 1.5f);
  CHECK(Sampler({.temperature = 0.0f}, 300).sample(flat, 0).id == 0);
  for (uint64_t i = 0; i < 50; ++i) CHECK(Sampler({.top_k = 3}, 300).sample(flat, i).id < 3);
  // A target that rounding puts above the whole mass keeps everything.
  for (float p : {0.99999994f, 0.9999999f}) {
    CHECK(Sampler({.top_p = p}, 300).sample(flat, 0).id < 300);
    CHECK(Sampler({.typical_p = p}, 300).sample(flat, 0).id < 300);
  }
}

void test_bad_input() {
  std::vector<float> logits(33, 0.0f);
  Sampler sampler({}, 33);
  CHECK_THROWS(std::invalid_argument, (sampler.sample({logits.data(), 32}, 0)));
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()})
    for (size_t at : {0, 16, 32}) {
      auto broken = logits;
      broken[at] = bad;
      CHECK_THROWS(std::domain_error, (sampler.sample(broken, 0)));
    }
  SamplingParams ban;
  for (int32_t id = 0; id < 33; ++id)
    ban.logit_bias.push_back({id, -std::numeric_limits<float>::infinity()});
  CHECK_THROWS(std::domain_error, (Sampler(ban, 33).sample(logits, 0)));
  ban.logit_bias.pop_back();
  CHECK(Sampler(ban, 33).sample(logits, 0).id == 32);
  CHECK_THROWS(std::invalid_argument, (Sampler({.logit_bias = {{33, 1.0f}}}, 33)));
  CHECK_THROWS(std::invalid_argument, (Sampler({.logit_bias = {{-1, 1.0f}}}, 33)));
  CHECK_THROWS(std::invalid_argument, (Sampler({.temperature = std::nanf("")}, 33)));
  CHECK_THROWS(std::invalid_argument, (Sampler({.top_p = 0.0f}, 33)));
  const int32_t outside = 33;
  CHECK_THROWS(std::invalid_argument, (sampler.observe({&outside, 1}, true)));
}

void test_window() {
  std::vector<float> logits(8, 0.0f);
  logits[3] = 1.0f;
  Sampler sampler({.temperature = 0.0f, .presence_penalty = 2.0f, .penalty_window = 2}, 8);
  const int32_t three = 3;
  const int32_t five = 5;
  sampler.observe({&three, 1}, true);
  CHECK(sampler.sample(logits, 0).id == 0);
  sampler.observe({&five, 1}, true);
  sampler.observe({&five, 1}, true);
  CHECK(sampler.sample(logits, 0).id == 3);
}

void test_divergence() {
  for (size_t size : {1, 5, 255, 256, 257, 5003}) {
    const auto reference = noise(size, 1), candidate = noise(size, 2);
    const int32_t target = static_cast<int32_t>(size) - 1;
    std::vector<RowDivergence> found(1);
    divergence_rows(reference, candidate, size, {&target, 1}, found);
    double p_sum = 0, q_sum = 0, kl = 0;
    for (size_t i = 0; i < size; ++i) p_sum += std::exp(double(reference[i]));
    for (size_t i = 0; i < size; ++i) q_sum += std::exp(double(candidate[i]));
    for (size_t i = 0; i < size; ++i) {
      const double p = reference[i] - std::log(p_sum), q = candidate[i] - std::log(q_sum);
      kl += std::exp(p) * (p - q);
    }
    CHECK(std::abs(found[0].kl - kl) <= 1e-6 * (1 + kl));
    CHECK(std::abs(found[0].reference_logprob - (reference.back() - std::log(p_sum))) <= 1e-6);
    CHECK(std::abs(found[0].candidate_logprob - (candidate.back() - std::log(q_sum))) <= 1e-6);
    CHECK_THROWS(std::invalid_argument,
                 (divergence_rows(reference, candidate, size + 1, {&target, 1}, found), 0));
  }
}

// Sequences drawn from on several threads get what they get one after the other; masks of any length.
void test_draws() {
  for (size_t vocab : {31, 32, 33, 1000}) {
    const auto logits = noise(40 * vocab, vocab);
    std::vector<uint32_t> mask(mask_words(vocab), 0x55555555u);
    ThreadPool pool(3);
    const auto run = [&](const Each& each) {
      std::vector<Sampler> samplers;
      for (uint64_t seed = 0; seed < 20; ++seed) samplers.emplace_back(SamplingParams{.presence_penalty = 1.0f, .seed = seed}, vocab);
      std::vector<Draw> draws;
      for (size_t i = 0; i < 20; ++i)
        draws.push_back({&samplers[i], 3, i, {}, i % 3 ? std::span<const uint32_t>{} : std::span<const uint32_t>(mask)});
      draws[19].guesses = {int32_t(vocab) - 1, 0};
      draw_all(logits, vocab, draws, each);
      std::vector<int32_t> ids;
      for (const Draw& draw : draws)
        for (const Choice& choice : draw.choices) ids.push_back(choice.id);
      return ids;
    };
    const auto serial = run([](int64_t count, const auto& body) {
      for (int64_t i = 0; i < count; ++i) body(i);
    });
    const auto parallel = run([&](int64_t count, const auto& body) {
      pool.run([&](Worker& worker) {
        worker.each(count, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) body(i);
        });
      });
    });
    CHECK(serial == parallel);
    CHECK(serial.size() >= 20);
    for (size_t i = 0; i < 20; i += 3) CHECK(serial[i] % 2 == 0);
  }
}

}  // namespace

int main() {
  test_philox();
  test_exp();
  test_every_size_and_filter();
  test_ties();
  test_bad_input();
  test_window();
  test_divergence();
  test_draws();
  return report();
}
