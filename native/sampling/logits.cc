#include "sampling/logits.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

namespace pocketlm {
namespace {

constexpr size_t kLanes = 16;  // independent accumulators, four vectors of four
constexpr size_t kChunk = 4096;  // floats summed in single precision before a double takes over
constexpr size_t kStretch = 32;     // logits that are passed over together where all are too small
constexpr size_t kFineChunk = 256;  // the same where the sum's own error shows
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Four floats in a register of every machine we know (a GCC and Clang extension): compilers do not
// find these for the loops below by themselves.
using Vector = float __attribute__((vector_size(16)));
using Mask = int32_t __attribute__((vector_size(16)));

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }
inline bool any(Mask mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }

// exp(x) for x <= 0. Range reduction by ln 2 in two parts, then the degree-5 polynomial of Cephes' expf.
inline float exp_nonpositive(float x) {
  const float clamped = x < -87.0f ? -87.0f : x;
  const int32_t n = static_cast<int32_t>(clamped * 1.44269504088896341f - 0.5f);
  const float whole = static_cast<float>(n);
  const float r = clamped - whole * 0.693359375f - whole * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float power = std::bit_cast<float>((n + 127) << 23);
  return x < -87.0f ? 0.0f : (p * r * r + r + 1.0f) * power;
}

}  // namespace

Scan scan(std::span<const float> logits) {
  std::array<Vector, 4> max;
  std::array<Vector, 4> zero{};  // x * 0 is 0 for every finite x and NaN for every other
  max.fill(Vector{} + kMinusInfinity);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes)
    for (size_t j = 0; j < 4; ++j) {
      const Vector x = load(&logits[i + 4 * j]);
      max[j] = larger(x, max[j]);
      zero[j] += x * 0.0f;
    }
  Vector zeros = (zero[0] + zero[1]) + (zero[2] + zero[3]);
  Vector best = larger(larger(max[0], max[1]), larger(max[2], max[3]));
  for (; i < logits.size(); ++i) {
    best[0] = std::max(best[0], logits[i]);
    zeros[0] += logits[i] * 0.0f;
  }
  return {std::max(std::max(best[0], best[1]), std::max(best[2], best[3])), !any(zeros != 0.0f)};
}

size_t find_first(std::span<const float> logits, float value) {
  const Vector wanted = Vector{} + value;
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    const float* x = &logits[i];
    if (any((load(x) == wanted) | (load(x + 4) == wanted) | (load(x + 8) == wanted) |
            (load(x + 12) == wanted)))
      break;
  }
  while (i < logits.size() && logits[i] != value) ++i;
  return i;
}

double exp_weights(std::span<const float> logits, float max, float inverse_temperature,
                   std::span<float> weights) {
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kChunk) {
    const size_t end = std::min(begin + kChunk, logits.size());
    for (size_t i = begin; i < end; ++i)
      weights[i] = exp_nonpositive((logits[i] - max) * inverse_temperature);
    std::array<float, kLanes> sum{};
    size_t i = begin;
    for (; i + kLanes <= end; i += kLanes)
      for (size_t j = 0; j < kLanes; ++j) sum[j] += weights[i + j];
    for (; i < end; ++i) sum[0] += weights[i];
    for (float s : sum) total += s;
  }
  return total;
}

double log_normalizer(std::span<const float> logits, float max) {
  std::array<float, kFineChunk> weights;
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kFineChunk) {
    const size_t size = std::min(kFineChunk, logits.size() - begin);
    total += exp_weights(logits.subspan(begin, size), max, 1.0f, {weights.data(), size});
  }
  return std::log(total);
}

RowDivergence row_divergence(std::span<const float> reference, std::span<const float> candidate,
                             size_t target, float reference_max, float candidate_max) {
  // With r and c the logits less their maxima, R = sum(exp(r)), C = sum(exp(c)):
  // KL = sum(exp(r) (r - c)) / R - log R + log C. One pass has all three sums.
  std::array<float, kFineChunk> weights;
  double reference_sum = 0, candidate_sum = 0, cross = 0;
  for (size_t begin = 0; begin < reference.size(); begin += kFineChunk) {
    const size_t size = std::min(kFineChunk, reference.size() - begin);
    const float* r = &reference[begin];
    const float* c = &candidate[begin];
    candidate_sum += exp_weights({c, size}, candidate_max, 1.0f, {weights.data(), size});
    reference_sum += exp_weights({r, size}, reference_max, 1.0f, {weights.data(), size});
    std::array<float, kLanes> sum{};
    auto add = [&](size_t i, float& to) {
      to += weights[i] * ((r[i] - reference_max) - (c[i] - candidate_max));
    };
    size_t i = 0;
    for (; i + kLanes <= size; i += kLanes)
      for (size_t j = 0; j < kLanes; ++j) add(i + j, sum[j]);
    for (; i < size; ++i) add(i, sum[0]);
    for (float s : sum) cross += s;
  }
  const double reference_log = std::log(reference_sum), candidate_log = std::log(candidate_sum);
  return {
      .kl = std::max(0.0, cross / reference_sum - reference_log + candidate_log),
      .reference_logprob = double(reference[target]) - reference_max - reference_log,
      .candidate_logprob = double(candidate[target]) - candidate_max - candidate_log,
      .same_top = find_first(reference, reference_max) == find_first(candidate, candidate_max),
  };
}

namespace {

// The largest value of each stretch of kStretch.
void stretch_maxima(std::span<const float> logits, std::vector<float>& maxima) {
  maxima.clear();
  for (size_t begin = 0; begin < logits.size(); begin += kStretch) {
    const size_t end = std::min(begin + kStretch, logits.size());
    size_t i = begin;
    Vector max = Vector{} + kMinusInfinity;
    for (; i + 4 <= end; i += 4) max = larger(load(&logits[i]), max);
    float best = std::max(std::max(max[0], max[1]), std::max(max[2], max[3]));
    for (; i < end; ++i) best = std::max(best, logits[i]);
    maxima.push_back(best);
  }
}

// Below the logit of the best `count`-th candidate, and near it: that many stretches hold one that is not below this.
float threshold_below(std::span<const float> maxima, size_t count) {
  if (maxima.size() <= count) return kMinusInfinity;
  thread_local std::vector<float> order;
  order.assign(maxima.begin(), maxima.end());
  std::nth_element(order.begin(), order.begin() + static_cast<ptrdiff_t>(count - 1), order.end(), std::greater<>());
  return std::nextafter(order[count - 1], kMinusInfinity);
}

}  // namespace

void best_candidates(std::span<const float> logits, size_t count, std::vector<Candidate>& best) {
  best.clear();
  if (count == 0) return;
  const size_t capacity = std::max<size_t>(4 * count, 256);
  thread_local std::vector<float> maxima;
  stretch_maxima(logits, maxima);
  float threshold = threshold_below(maxima, count);
  // Ids come in ascending order, so a later logit equal to the threshold always ranks behind it.
  auto offer = [&](size_t i) {
    if (!(logits[i] > threshold)) return;
    best.push_back({logits[i], static_cast<int32_t>(i)});
    if (best.size() < capacity) return;
    std::nth_element(best.begin(), best.begin() + static_cast<ptrdiff_t>(count - 1), best.end(),
                     ranks_before);
    best.resize(count);
    threshold = best[count - 1].logit;
  };
  for (size_t stretch = 0; stretch < maxima.size(); ++stretch) {
    if (!(maxima[stretch] > threshold)) continue;
    const size_t end = std::min((stretch + 1) * kStretch, logits.size());
    for (size_t i = stretch * kStretch; i < end; ++i) offer(i);
  }
  std::sort(best.begin(), best.end(), ranks_before);
  if (best.size() > count) best.resize(count);
}

}  // namespace pocketlm
