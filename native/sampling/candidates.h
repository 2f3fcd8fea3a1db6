// The tokens still in the draw, in order of id, and the filters that shrink them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sampling/logits.h"

namespace pocketlm {

class Candidates {
 public:
  // All tokens of the vocabulary. max: the largest logit.
  void take_all(std::span<const float> logits, float max);

  // The k best of the vocabulary.
  void take_top_k(std::span<const float> logits, float max, size_t k);

  // The tokens that top_p keeps of the whole vocabulary: the same set as take_all and keep_top_p,
  // without touching the vocabulary twice where few tokens hold the mass.
  void take_top_p(std::span<const float> logits, float max, float top_p);

  void keep_typical(float typical_p);
  void keep_top_p(float top_p);
  void keep_min_p(float min_p);

  // The candidate at which the running sum of exp(logit / temperature) passes u times the whole.
  int32_t draw(float temperature, double u);

 private:
  template <class Keep>
  void filter(Keep keep);
  // Keeps the smallest set, in order of (key, id), whose weights reach target.
  void keep_mass(double target);
  double find_range(double target);
  double weigh(float inverse_temperature);

  float max_ = 0;
  std::vector<int32_t> ids_;
  std::vector<float> logits_;
  std::vector<float> weights_;  // filled by weigh
  std::vector<float> keys_;     // filled by the filters that call keep_mass
  std::vector<uint32_t> order_;
  std::vector<Candidate> best_;
};

}  // namespace pocketlm
