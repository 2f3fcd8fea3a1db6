// What all sequences of a step draw from its logits, on the threads that computed them.
//
// A sequence has a row of logits, and one more for each token that was guessed to follow. Each row is drawn from as if it
// had come in a step of its own, and the next one counts only if its token is the one that was guessed. Rows of one
// sequence are drawn one after the other, since penalties count what was drawn before; sequences side by side.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sampling/sampler.h"

namespace pocketlm {

struct Draw {
  Sampler* sampler;
  uint64_t index;                   // output position of the token of its first row
  size_t row;                       // which one that is
  std::vector<int32_t> guesses;     // has one row more than these
  std::span<const uint32_t> masks;  // empty, or a mask for each row

  // What comes of it: the tokens drawn, which the sampler has observed.
  std::vector<Choice> choices = {};
  std::string error = {};   // why there are no more of them
  bool banned = false;      // whether that is the caller's fault
};

// Calls body(i) for every i in [0, count), in any order and on any thread.
using Each = std::function<void(int64_t count, const std::function<void(int64_t)>& body)>;

// logits: [rows, vocab].
// Throws std::invalid_argument for rows that are not there, or another number of mask words or tokens.
void draw_all(std::span<const float> logits, size_t vocab, std::span<Draw> draws, const Each& each);

// score_token of every row of logits [rows, vocab]; targets: (rows,). Throws as it does.
std::vector<Choice> score_all(std::span<const float> logits, size_t vocab, std::span<const int32_t> targets, int32_t best,
                              const Each& each);

}  // namespace pocketlm
