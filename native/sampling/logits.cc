#include "sampling/logits.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace pocketlm {
namespace {

constexpr size_t kLanes = 16;  // independent accumulators: what lets a compiler use vectors
constexpr size_t kChunk = 4096;  // floats summed in single precision before a double takes over
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

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

// The maximum of 16 values: a test whether a whole group can be passed over.
inline float group_max(const float* x) {
  std::array<float, 4> m = {x[0], x[1], x[2], x[3]};
  for (size_t i = 4; i < kLanes; i += 4)
    for (size_t j = 0; j < 4; ++j) m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
  return std::max(std::max(m[0], m[1]), std::max(m[2], m[3]));
}

}  // namespace

Scan scan(std::span<const float> logits) {
  std::array<float, kLanes> max;
  std::array<float, kLanes> zero{};  // x * 0 is 0 for every finite x and NaN for every other
  max.fill(kMinusInfinity);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes)
    for (size_t j = 0; j < kLanes; ++j) {
      const float x = logits[i + j];
      max[j] = x > max[j] ? x : max[j];
      zero[j] += x * 0.0f;
    }
  for (; i < logits.size(); ++i) {
    max[0] = std::max(max[0], logits[i]);
    zero[0] += logits[i] * 0.0f;
  }
  bool finite = true;
  for (float z : zero) finite = finite && z == 0.0f;
  return {*std::max_element(max.begin(), max.end()), finite};
}

size_t find_first(std::span<const float> logits, float value) {
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    int hits = 0;
    for (size_t j = 0; j < kLanes; ++j) hits |= logits[i + j] == value;
    if (hits) break;
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
  std::array<float, kChunk> weights;
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kChunk) {
    const size_t size = std::min(kChunk, logits.size() - begin);
    total += exp_weights(logits.subspan(begin, size), max, 1.0f, {weights.data(), size});
  }
  return std::log(total);
}

void best_candidates(std::span<const float> logits, size_t count, std::vector<Candidate>& best) {
  best.clear();
  if (count == 0) return;
  const size_t capacity = std::max<size_t>(4 * count, 256);
  float threshold = kMinusInfinity;
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
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes)
    if (group_max(&logits[i]) > threshold)
      for (size_t j = 0; j < kLanes; ++j) offer(i + j);
  for (; i < logits.size(); ++i) offer(i);
  std::sort(best.begin(), best.end(), ranks_before);
  if (best.size() > count) best.resize(count);
}

}  // namespace pocketlm
