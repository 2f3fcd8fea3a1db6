#include "sampling/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "base/error.h"
#include "sampling/candidates.h"
#include "sampling/philox.h"

namespace pocketlm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Below this the second best token's weight underflows unless it ties; 1 / temperature stays finite.
constexpr float kGreedyBelow = 1e-5f;

bool unit(float x) { return x > 0.0f && x <= 1.0f; }

void check(const SamplingParams& p, size_t vocab) {
  require(vocab > 0 && vocab <= size_t{std::numeric_limits<int32_t>::max()},
          "vocab is out of range");
  require(p.temperature >= 0.0f && p.temperature < kInfinity, "temperature is not in [0, inf)");
  require(p.top_k >= 0, "top_k is negative");
  require(unit(p.top_p), "top_p is not in (0, 1]");
  require(p.min_p >= 0.0f && p.min_p <= 1.0f, "min_p is not in [0, 1]");
  require(unit(p.typical_p), "typical_p is not in (0, 1]");
  require(p.repetition_penalty > 0.0f && p.repetition_penalty < kInfinity,
          "repetition_penalty is not in (0, inf)");
  require(std::isfinite(p.frequency_penalty), "frequency_penalty is not finite");
  require(std::isfinite(p.presence_penalty), "presence_penalty is not finite");
  require(p.penalty_window >= 0, "penalty_window is negative");
  require(p.logprobs >= -1, "logprobs is below -1");
  for (int32_t id : p.ends)
    require(id >= 0 && static_cast<size_t>(id) < vocab, "ends names an id outside the vocabulary");
  for (const auto& [id, bias] : p.logit_bias) {
    require(id >= 0 && static_cast<size_t>(id) < vocab, "logit_bias names an id outside the vocabulary");
    require(std::isfinite(bias) || bias == -kInfinity, "logit_bias is NaN or +inf");
  }
}

Scan checked_scan(std::span<const float> logits) {
  const Scan result = scan(logits);
  if (result.finite) return result;
  size_t bad = 0;
  while (std::isfinite(logits[bad])) ++bad;
  throw std::domain_error("the logit of token " + std::to_string(bad) + " is " +
                          std::to_string(logits[bad]));
}

// The logits of the tokens whose bit is set, -inf for all others. A grammar leaves few or nearly all.
void take_allowed(std::span<const float> logits, std::span<const uint32_t> mask, std::vector<float>& to) {
  to.assign(logits.size(), -kInfinity);
  for (size_t word = 0; word < mask.size(); ++word) {
    const size_t begin = 32 * word;
    const size_t end = std::min(begin + 32, logits.size());
    if (mask[word] == ~uint32_t{0}) {
      std::copy(logits.begin() + static_cast<ptrdiff_t>(begin), logits.begin() + static_cast<ptrdiff_t>(end),
                to.begin() + static_cast<ptrdiff_t>(begin));
      continue;
    }
    for (uint32_t bits = mask[word]; bits != 0; bits &= bits - 1) {
      const size_t id = begin + static_cast<size_t>(std::countr_zero(bits));
      if (id < end) to[id] = logits[id];
    }
  }
}

// Memory as large as the vocabulary is kept from call to call: fresh pages cost more than the work.
struct Workspace {
  std::vector<float> adjusted;
  std::vector<Candidate> best;
  Candidates candidates;
};

Workspace& workspace() {
  thread_local Workspace instance;
  return instance;
}

}  // namespace

Sampler::Sampler(SamplingParams params, size_t vocab) : params_(std::move(params)), vocab_(vocab) {
  check(params_, vocab_);
}

bool Sampler::penalises() const {
  return params_.repetition_penalty != 1.0f || params_.frequency_penalty != 0.0f ||
         params_.presence_penalty != 0.0f;
}

void Sampler::observe(std::span<const int32_t> ids, bool output) {
  for (int32_t id : ids)
    require(id >= 0 && static_cast<size_t>(id) < vocab_, "a token id is outside the vocabulary");
  if (!penalises()) return;
  for (int32_t id : ids) {
    Count& count = counts_[id];
    ++count.all;
    count.output += output;
    if (params_.penalty_window == 0) continue;
    window_.push_back({id, output});
    if (window_.size() <= static_cast<size_t>(params_.penalty_window)) continue;
    const Seen gone = window_.front();
    window_.pop_front();
    Count& left = counts_[gone.id];
    left.output -= gone.output;
    if (--left.all == 0) counts_.erase(gone.id);
  }
}

float Sampler::adjust(std::span<const float> logits, std::span<const uint32_t> mask, bool early,
                      std::vector<float>& adjusted) const {
  if (mask.empty()) {
    adjusted.assign(logits.begin(), logits.end());
  } else {
    take_allowed(logits, mask, adjusted);
  }
  if (early)
    for (int32_t id : params_.ends) adjusted[static_cast<size_t>(id)] = -kInfinity;
  for (const auto& [id, bias] : params_.logit_bias) adjusted[static_cast<size_t>(id)] += bias;
  for (const auto& [id, count] : counts_) {
    float& logit = adjusted[static_cast<size_t>(id)];
    logit = logit > 0.0f ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    if (count.output == 0) continue;
    logit -= params_.frequency_penalty * static_cast<float>(count.output) + params_.presence_penalty;
  }
  return scan(adjusted).max;
}

int32_t Sampler::draw(std::span<const float> logits, float max, uint64_t index) const {
  Candidates& candidates = workspace().candidates;
  const bool typical = params_.typical_p < 1.0f;
  const bool top_p = params_.top_p < 1.0f;
  if (params_.top_k > 0) {
    candidates.take_top_k(logits, max, static_cast<size_t>(params_.top_k));
  } else if (top_p && !typical) {
    candidates.take_top_p(logits, max, params_.top_p);
  } else {
    candidates.take_all(logits, max);
  }
  if (typical) candidates.keep_typical(params_.typical_p);
  if (top_p && (typical || params_.top_k > 0)) candidates.keep_top_p(params_.top_p);
  if (params_.min_p > 0.0f) candidates.keep_min_p(params_.min_p);
  return candidates.draw(params_.temperature, uniform(params_.seed, index));
}

namespace {

void add_logprobs(std::span<const float> logits, float max, int32_t count, Choice& choice) {
  const double norm = log_normalizer(logits, max);
  const auto logprob = [&](float logit) { return static_cast<double>(logit) - max - norm; };
  choice.logprob = logprob(logits[static_cast<size_t>(choice.id)]);
  auto& best = workspace().best;
  best_candidates(logits, static_cast<size_t>(count), best);
  choice.best.reserve(best.size());
  for (const auto& [logit, id] : best) choice.best.push_back({id, logprob(logit)});
}

}  // namespace

Choice score_token(std::span<const float> logits, int32_t id, int32_t best) {
  require(id >= 0 && static_cast<size_t>(id) < logits.size(), "a target is outside the vocabulary");
  require(best >= 0, "the number of best tokens is negative");
  Choice choice;
  choice.id = id;
  add_logprobs(logits, checked_scan(logits).max, best, choice);
  return choice;
}

Choice Sampler::sample(std::span<const float> logits, uint64_t index, std::span<const uint32_t> mask) const {
  require(logits.size() == vocab_, "the row of logits does not have one logit per token");
  require(mask.empty() || mask.size() == mask_words(vocab_), "the mask does not have one bit per token");
  const Scan raw = checked_scan(logits);
  std::span<const float> seen = logits;
  float max = raw.max;
  const bool early = index < params_.min_tokens && !params_.ends.empty();
  if (!params_.logit_bias.empty() || !counts_.empty() || !mask.empty() || early) {
    auto& adjusted = workspace().adjusted;
    max = adjust(logits, mask, early, adjusted);
    if (max == -kInfinity && early && !mask.empty()) max = adjust(logits, mask, false, adjusted);
    seen = adjusted;
    if (max == -kInfinity) throw BannedError("logit_bias, min_tokens or a constraint bans every token");
    if (max == kInfinity) throw std::domain_error("bias and penalties overflow a logit");
  }
  Choice choice;
  choice.id = params_.temperature < kGreedyBelow ? static_cast<int32_t>(find_first(seen, max))
                                                 : draw(seen, max, index);
  if (params_.logprobs >= 0) add_logprobs(logits, raw.max, params_.logprobs, choice);
  return choice;
}

void target_logprobs(std::span<const float> logits, size_t vocab, std::span<const int32_t> targets,
                     std::span<double> result) {
  require(logits.size() == vocab * targets.size() && result.size() == targets.size(),
          "logits, targets and result differ in their number of rows");
  for (size_t row = 0; row < targets.size(); ++row) {
    const int32_t target = targets[row];
    require(target >= 0 && static_cast<size_t>(target) < vocab, "a target is outside the vocabulary");
    const auto values = logits.subspan(row * vocab, vocab);
    const float max = checked_scan(values).max;
    const double logit = values[static_cast<size_t>(target)];
    result[row] = logit - max - log_normalizer(values, max);
  }
}

void divergence_rows(std::span<const float> reference, std::span<const float> candidate, size_t vocab,
                     std::span<const int32_t> targets, std::span<RowDivergence> result) {
  require(reference.size() == vocab * targets.size() && candidate.size() == reference.size() &&
              result.size() == targets.size(),
          "reference, candidate, targets and result differ in their number of rows");
  for (size_t row = 0; row < targets.size(); ++row) {
    const int32_t target = targets[row];
    require(target >= 0 && static_cast<size_t>(target) < vocab, "a target is outside the vocabulary");
    const auto r = reference.subspan(row * vocab, vocab), c = candidate.subspan(row * vocab, vocab);
    const float reference_max = checked_scan(r).max, candidate_max = checked_scan(c).max;
    result[row] = row_divergence(r, c, static_cast<size_t>(target), reference_max, candidate_max);
  }
}

}  // namespace pocketlm
