// The next token of one sequence, from one row of logits.
//
// Order (llama.cpp's default chain; what each step leaves is what the next one sees):
//   0. bans                  tokens that the mask leaves out, and before min_tokens those that end the
//                            answer, are not there; where the mask leaves only these, it wins
//   1. logit bias            logit += bias (-inf bans the token)
//   2. penalties             repetition: over prompt and output, logit > 0 ? logit / r : logit * r
//                            (Keskar et al. 2019, CTRL); frequency and presence: over the output,
//                            logit -= f * count + p (as the OpenAI API defines them)
//   3. temperature 0         the best candidate, and nothing below applies
//   4. top-k                 the k best
//   5. typical               the smallest set nearest to the entropy that holds typical_p
//                            (Meister et al. 2022)
//   6. top-p                 the smallest set of the best that holds top_p (Holtzman et al. 2019)
//   7. min-p                 those with at least min_p times the best one's probability
//   8. temperature           weights exp(logit / temperature)
//   9. draw                  walks what is left in order of id with draw number `index` of the seed
// Equal logits rank by id, the lower first. Steps 5 to 7 see probabilities at temperature 1.
// Log-probabilities are of the raw logits, before step 1.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

#include "sampling/logits.h"

namespace pocketlm {

struct SamplingParams {
  float temperature = 1.0f;  // >= 0; 0 is greedy
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;        // (0, 1]; 1: off
  float min_p = 0.0f;        // [0, 1]; 0: off
  float typical_p = 1.0f;    // (0, 1]; 1: off
  float repetition_penalty = 1.0f;  // > 0; 1: off
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  int32_t penalty_window = 0;  // how many last tokens the penalties see; 0: all of them
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // finite or -inf
  uint64_t seed = 0;
  int32_t logprobs = -1;  // -1: none; n: of the chosen token and of the n best
  uint64_t min_tokens = 0;         // before this output position
  std::vector<int32_t> ends = {};  // these are banned
};

// Every token is banned: by the caller's options, not by the model.
struct BannedError : std::domain_error {
  using std::domain_error::domain_error;
};

// Words of a mask with a bit for each token.
inline size_t mask_words(size_t vocab) { return (vocab + 31) / 32; }

struct TokenLogprob {
  int32_t id;
  double logprob;
};

struct Choice {
  int32_t id = 0;
  double logprob = 0;              // of the chosen token; 0 unless asked for
  std::vector<TokenLogprob> best;  // best first
};

// Thread-compatible: one sampler belongs to one sequence; different samplers may run at once.
class Sampler {
 public:
  // vocab: how many logits a row has. Throws std::invalid_argument for parameters out of range.
  Sampler(SamplingParams params, size_t vocab);

  // Tokens that the penalties count: the prompt once, then every token of the output.
  // Throws std::invalid_argument for an id outside the vocabulary.
  void observe(std::span<const int32_t> ids, bool output);

  // The choice for output position `index`: a function of the parameters, the logits, the mask, the
  // tokens observed and index alone. logits: (vocab,). mask: empty, or a bit for each token that may
  // come, token i in bit i % 32 of word i / 32.
  // Throws std::domain_error if a logit is NaN or infinite, BannedError if every token is banned.
  Choice sample(std::span<const float> logits, uint64_t index, std::span<const uint32_t> mask = {}) const;

  size_t vocab() const { return vocab_; }

 private:
  struct Count {
    int32_t all = 0;
    int32_t output = 0;
  };
  struct Seen {
    int32_t id;
    bool output;
  };

  bool penalises() const;
  // Steps 0 to 2 into `adjusted`; the largest logit that is left.
  float adjust(std::span<const float> logits, std::span<const uint32_t> mask, bool early,
               std::vector<float>& adjusted) const;
  int32_t draw(std::span<const float> logits, float max, uint64_t index) const;

  SamplingParams params_;
  size_t vocab_;
  std::unordered_map<int32_t, Count> counts_;
  std::deque<Seen> window_;  // only where penalty_window is set
};

// A token that is given with its log-probability and the `best` likeliest ones with theirs. logits: (vocab,).
// Throws std::domain_error for NaN or infinite logits, std::invalid_argument for an id out of range.
Choice score_token(std::span<const float> logits, int32_t id, int32_t best);

// log softmax(logits[row])[targets[row]] for every row. logits: (rows, vocab); targets, result: (rows,).
// Throws std::domain_error for NaN or infinite logits, std::invalid_argument for a target out of range.
void target_logprobs(std::span<const float> logits, size_t vocab, std::span<const int32_t> targets,
                     std::span<double> result);

// row_divergence of every row of reference and candidate, both (rows, vocab), at its target.
// Throws as target_logprobs does.
void divergence_rows(std::span<const float> reference, std::span<const float> candidate, size_t vocab,
                     std::span<const int32_t> targets, std::span<RowDivergence> result);

}  // namespace pocketlm
