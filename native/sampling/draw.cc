#include "sampling/draw.h"

#include <exception>

#include "base/error.h"

namespace pocketlm {
namespace {

void draw(std::span<const float> logits, size_t vocab, Draw& draw) {
  const size_t words = draw.masks.size() / (1 + draw.guesses.size());
  try {
    for (size_t i = 0; i <= draw.guesses.size(); ++i) {
      const auto mask = draw.masks.subspan(i * words, words);
      draw.choices.push_back(draw.sampler->sample(logits.subspan(i * vocab, vocab), draw.index + i, mask));
      const int32_t id = draw.choices.back().id;
      draw.sampler->observe({&id, 1}, true);
      if (i < draw.guesses.size() && id != draw.guesses[i]) return;
    }
  } catch (const BannedError& error) {
    draw.error = error.what();
    draw.banned = true;
  } catch (const std::exception& error) {  // no exception may leave a thread of the pool
    draw.error = error.what();
  }
}

}  // namespace

void draw_all(std::span<const float> logits, size_t vocab, std::span<Draw> draws, const Each& each) {
  for (const Draw& draw : draws) {
    const size_t own = 1 + draw.guesses.size();
    require(draw.sampler->vocab() == vocab, "a sampler is made for another vocabulary");
    require(draw.masks.empty() || draw.masks.size() == own * mask_words(vocab), "masks are [rows, words]");
    require(draw.row <= logits.size() / vocab && own <= logits.size() / vocab - draw.row, "there are fewer rows of logits");
  }
  each(static_cast<int64_t>(draws.size()), [&](int64_t i) {
    Draw& one = draws[static_cast<size_t>(i)];
    draw(logits.subspan(one.row * vocab, (1 + one.guesses.size()) * vocab), vocab, one);
  });
}

std::vector<Choice> score_all(std::span<const float> logits, size_t vocab, std::span<const int32_t> targets, int32_t best,
                              const Each& each) {
  require(logits.size() == vocab * targets.size(), "logits and targets differ in their number of rows");
  std::vector<Choice> scores(targets.size());
  std::vector<std::exception_ptr> errors(targets.size());
  each(static_cast<int64_t>(targets.size()), [&](int64_t i) {
    const auto row = static_cast<size_t>(i);
    try {
      scores[row] = score_token(logits.subspan(row * vocab, vocab), targets[row], best);
    } catch (...) {  // no exception may leave a thread of the pool
      errors[row] = std::current_exception();
    }
  });
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
  return scores;
}

}  // namespace pocketlm
