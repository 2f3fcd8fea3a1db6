// What is done to one row of logits over a whole vocabulary (up to 262k floats): one pass each.
// Everything here is plain adds and multiplies in a fixed order, so that a seed gives the same text
// on every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pocketlm {

struct Candidate {
  float logit;
  int32_t id;
};

// The one order of candidates: higher logit first; of equal ones the lower id.
inline bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

struct Scan {
  float max;
  bool finite;  // neither NaN nor infinity anywhere
};

// logits: not empty.
Scan scan(std::span<const float> logits);

// The lowest id whose logit equals value; the size if there is none.
size_t find_first(std::span<const float> logits, float value);

// weights[i] = exp((logits[i] - max) * inverse_temperature), relative error below 3e-7, 0 below e^-87.
// Returns their sum. logits[i] <= max; -inf gives 0. weights may be the same memory as logits.
double exp_weights(std::span<const float> logits, float max, float inverse_temperature,
                   std::span<float> weights);

// log(sum(exp(logits - max))) for finite logits with the given maximum: what a log-softmax takes off
// logit - max. (Added to max it would be lost where logits are huge.)
double log_normalizer(std::span<const float> logits, float max);

// How one row of logits differs from another over the same vocabulary, for one token that came next.
struct RowDivergence {
  double kl;                  // KL(softmax(reference) || softmax(candidate)), nats; not below 0
  double reference_logprob;   // of the token that came next
  double candidate_logprob;
  bool same_top;              // whether the likeliest tokens are the same; of equal ones the lowest id
};

// Both rows finite, of the same length; target is an index into them. Exponentials have single
// precision, sums are in double: the error of kl is about 1e-7, and equal rows give exactly 0.
RowDivergence row_divergence(std::span<const float> reference, std::span<const float> candidate,
                             size_t target, float reference_max, float candidate_max);

// The best `count` of them (fewer where others are -inf), best first. Cost: one pass and a partial
// selection, no full sort.
void best_candidates(std::span<const float> logits, size_t count, std::vector<Candidate>& best);

}  // namespace pocketlm
