#include "sampling/candidates.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>

namespace pocketlm {
namespace {

constexpr int32_t kBuckets = 2048;
constexpr size_t kFew = 64;  // candidates that are sorted at once
constexpr size_t kNucleus = 1024;  // tokens tried first for top-p; text is rarely less certain

}  // namespace

template <class Keep>
void Candidates::filter(Keep keep) {
  size_t kept = 0;
  for (size_t i = 0; i < ids_.size(); ++i) {  // no branch: whether to keep cannot be predicted
    ids_[kept] = ids_[i];
    logits_[kept] = logits_[i];
    kept += keep(i);
  }
  ids_.resize(kept);
  logits_.resize(kept);
}

void Candidates::take_all(std::span<const float> logits, float max) {
  max_ = max;
  logits_.assign(logits.begin(), logits.end());
  ids_.resize(logits.size());
  std::iota(ids_.begin(), ids_.end(), 0);
}

void Candidates::take_top_k(std::span<const float> logits, float max, size_t k) {
  if (k >= logits.size()) return take_all(logits, max);
  best_candidates(logits, k, best_);
  std::sort(best_.begin(), best_.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  max_ = max;
  ids_.clear();
  logits_.clear();
  for (const auto& candidate : best_) {
    ids_.push_back(candidate.id);
    logits_.push_back(candidate.logit);
  }
}

void Candidates::take_top_p(std::span<const float> logits, float max, float top_p) {
  weights_.resize(logits.size());
  const double target = top_p * exp_weights(logits, max, 1.0f, weights_);
  take_top_k(logits, max, kNucleus);
  if (weigh(1.0f) < target) {
    take_all(logits, max);
    weigh(1.0f);
  }
  keys_.resize(logits_.size());
  std::transform(logits_.begin(), logits_.end(), keys_.begin(), std::negate<>());
  keep_mass(target);
}

void Candidates::keep_typical(float typical_p) {
  const double total = weigh(1.0f);
  const double log_total = std::log(total);
  double entropy = 0;  // H = log Z - sum(p * (logit - max))
  for (size_t i = 0; i < ids_.size(); ++i)
    if (weights_[i] > 0) entropy -= weights_[i] / total * (logits_[i] - max_);
  entropy += log_total;
  keys_.resize(ids_.size());
  for (size_t i = 0; i < ids_.size(); ++i)
    keys_[i] = static_cast<float>(std::abs(log_total - (logits_[i] - max_) - entropy));
  keep_mass(typical_p * total);
  max_ = *std::max_element(logits_.begin(), logits_.end());
}

void Candidates::keep_top_p(float top_p) {
  const double target = top_p * weigh(1.0f);
  keys_.resize(logits_.size());
  std::transform(logits_.begin(), logits_.end(), keys_.begin(), std::negate<>());
  keep_mass(target);
}

void Candidates::keep_min_p(float min_p) {
  // p(i) >= min_p * p(best), said of logits.
  const float least = max_ + std::log(min_p);
  filter([&](size_t i) { return logits_[i] >= least || logits_[i] == max_; });
}

// A histogram of the keys finds the range of ranks in which the target is reached; order_ becomes
// the candidates of that range. Returns the mass of those ahead of it. The bucket is a
// non-decreasing function of the key (float rounding is monotone), so this is exact.
double Candidates::find_range(double target) {
  if (keys_.size() <= kFew) {  // not worth the histogram, which is far from any cache by now
    order_.resize(keys_.size());
    std::iota(order_.begin(), order_.end(), 0u);
    return 0;
  }
  float low = keys_[0];
  float high = keys_[0];
  for (float key : keys_) {
    low = key < low ? key : low;
    high = key > high && std::isfinite(key) ? key : high;
  }
  constexpr int32_t last = kBuckets - 1;
  const float scale = high > low ? static_cast<float>(kBuckets) / (high - low) : 0.0f;
  const auto bucket = [&](size_t i) {
    const float b = (keys_[i] - low) * scale;
    return b < static_cast<float>(last) ? static_cast<int32_t>(b) : last;
  };
  std::array<double, kBuckets> masses{};
  for (size_t i = 0; i < keys_.size(); ++i) masses[static_cast<size_t>(bucket(i))] += weights_[i];
  double ahead = 0;
  int32_t reached = 0;
  while (reached < last && ahead + masses[static_cast<size_t>(reached)] < target)
    ahead += masses[static_cast<size_t>(reached++)];
  order_.clear();
  for (size_t i = 0; i < keys_.size(); ++i)
    if (bucket(i) == reached) order_.push_back(static_cast<uint32_t>(i));
  return ahead;
}

// Within the range, quickselect by weight: halve it until the rank where the target is reached is
// known. The total cost is linear in the number of candidates.
void Candidates::keep_mass(double target) {
  const auto ahead = [this](uint32_t a, uint32_t b) {
    return keys_[a] < keys_[b] || (keys_[a] == keys_[b] && a < b);
  };
  double mass = find_range(target);
  if (order_.empty()) return;  // rounding left the target above the whole mass: all of them
  size_t begin = 0;
  size_t end = order_.size();
  while (end - begin > 64) {
    const size_t middle = begin + (end - begin) / 2;
    std::nth_element(order_.begin() + static_cast<ptrdiff_t>(begin),
                     order_.begin() + static_cast<ptrdiff_t>(middle),
                     order_.begin() + static_cast<ptrdiff_t>(end), ahead);
    double half = 0;
    for (size_t i = begin; i < middle; ++i) half += weights_[order_[i]];
    if (mass + half >= target) {
      end = middle;
    } else {
      mass += half;
      begin = middle;
    }
  }
  std::sort(order_.begin() + static_cast<ptrdiff_t>(begin),
            order_.begin() + static_cast<ptrdiff_t>(end), ahead);
  uint32_t last = order_[begin];
  for (size_t i = begin; i < end; ++i) {
    last = order_[i];
    mass += weights_[last];
    if (mass >= target) break;
  }
  const float key = keys_[last];
  filter([&](size_t i) { return keys_[i] < key || (keys_[i] == key && i <= last); });
}

double Candidates::weigh(float inverse_temperature) {
  weights_.resize(logits_.size());
  return exp_weights(logits_, max_, inverse_temperature, weights_);
}

int32_t Candidates::draw(float temperature, double u) {
  const double target = u * weigh(1.0f / temperature);
  double sum = 0;
  int32_t last = ids_.front();
  for (size_t i = 0; i < ids_.size(); ++i) {
    if (weights_[i] == 0) continue;
    last = ids_[i];
    sum += weights_[i];
    if (sum > target) break;
  }
  return last;
}

}  // namespace pocketlm
