// The search for the K types: each group's best line, then the super-block's f16 scales and the groups' few-bit ones that
// lose least of it, chosen and refitted in turn by the true error.
#pragma once

#include "quantize/encode_search-inl.h"
#include "quantize/encode_super-inl.h"

namespace pocketlm {
namespace {

// How a super-block writes its groups' scales: whole numbers kLow..kHigh times d (stored + kOffset), minima 0..kHigh
// times dmin.
template <int kLowScale, int kHighScale, int kStoredOffset>
struct ScaleCoding {
  static constexpr int kLow = kLowScale, kHigh = kHighScale, kOffset = kStoredOffset;
};

// A tile's super-blocks while they are searched: for each lane, what stands for its group.
struct SuperTile {
  alignas(64) float d[kLanes], dmin[kLanes];    // of the super-block, as f16 holds them
  alignas(64) float scale[kLanes], min[kLanes];  // whole numbers; the group is d * scale * l - dmin * min
};

// Sums over each lane's group, of its codes l: w l, w l^2, w l x, w x, w.
struct GroupSums {
  alignas(64) float l[kLanes], l2[kLanes], xl[kLanes], x[kLanes], w[kLanes];
};

inline float clamped_round(float x, float low, float high) {
  x = x < low ? low : x > high ? high : x;
  return (x + 12582912.0f) - 12582912.0f;
}

inline float in_half(float x) { return from_half(to_half(x)); }

// The unit u, and whole numbers n[j] in low..high, for which sum curvature[j] (value[j] - u n[j])^2 is least over units
// that put the extreme value at `reach`, for every entry of a list.
template <int kGroups, class Reaches>
float fit_unit(const float* values, const float* curvature, const Reaches& reaches, float low, float high, float* n) {
  float magnitude = 0, extreme = 0;
  for (int j = 0; j < kGroups; ++j) {
    const float a = values[j] < 0 ? -values[j] : values[j];
    if (a > magnitude) {
      magnitude = a;
      extreme = values[j];
    }
  }
  float unit = 0, least = __builtin_inff();
  for (const float reach : reaches) {
    const float u = in_half(extreme / reach), inverse = u != 0 ? 1.0f / u : 0.0f;
    float error = 0;
    for (int j = 0; j < kGroups; ++j) {
      const float rest = values[j] - u * clamped_round(values[j] * inverse, low, high);
      error += curvature[j] * (rest * rest);
    }
    if (error < least) {
      least = error;
      unit = u;
    }
  }
  const float inverse = unit != 0 ? 1.0f / unit : 0.0f;
  for (int j = 0; j < kGroups; ++j) n[j] = clamped_round(values[j] * inverse, low, high);
  return unit;
}

template <class BlockType, class G, class Coding, class Reference, class Where>
struct SearchSuper {
  using Block = BlockType;
  static constexpr bool kWeighted = true;
  static constexpr int kGroup = Reference::kGroup, kGroups = Reference::kGroups, kSupers = kLanes / kGroups;

  static void encode(Tile<kGroup>& t, Codes<kGroup>& codes, SuperScales* supers) {
    SuperTile now, best;
    alignas(64) float error[kLanes], best_error[kLanes];
    start(t, now);
    for (int round = 0; round <= Where::kSuperRounds; ++round) {
      for (int lane = 0; lane < kLanes; lane += kWidth) choose_scales(t, lane, now, error);
      keep_better(now, error, best, best_error, round == 0);
      if (round < Where::kSuperRounds) refit(t, now);
    }
    finish(t, best, best_error, codes, supers);
  }

  // The first choice: every group's own best line, then units for scales and minima by what a change of each costs.
  static void start(const Tile<kGroup>& t, SuperTile& now) {
    Scales lines;
    GroupSums sums;
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      const GroupSearch<G, kGroup> search(t, lane);
      Line line;
      if constexpr (G::kMinimum) line = search.best_line(Where::kMargins);
      else line = search.best_scale(Where::kReaches);
      line = search.refined(line, Where::kRounds);
      line = through_origin(search, line);
      store(&lines.d[lane], line.d);
      store(&lines.m[lane], line.m);
      store_sums(search, lane, line, sums);
    }
    for (int super = 0; super < kSupers; ++super) start_super(lines, sums, super * kGroups, now);
  }

  // A minimum is never above 0: then the line starts there.
  POCKETLM_LANES static Line through_origin(const GroupSearch<G, kGroup>& search, Line line) {
    if constexpr (G::kMinimum) {
      const Floats inverse = finite_inverse(line.d);
      const Moments s = search.moments(inverse, Floats{});
      const Floats d = (s.xl + search.center * s.l) / s.l2;
      const Ints above = line.m > 0.0f;
      line.d = select(above & is_finite(d), d, line.d);
      line.m = select(above, Floats{}, line.m);
    }
    return line;
  }

  POCKETLM_LANES static void store_sums(const GroupSearch<G, kGroup>& search, int lane, Line line, GroupSums& sums) {
    const Floats inverse = finite_inverse(line.d);
    const Moments s = search.moments(inverse, -line.m * inverse);
    store(&sums.l[lane], s.l);
    store(&sums.l2[lane], s.l2);
    store(&sums.xl[lane], G::kMinimum ? s.xl + search.center * s.l : s.xl);
    store(&sums.x[lane], search.center * search.sum_w);
    store(&sums.w[lane], search.sum_w);
  }

  static void start_super(const Scales& lines, const GroupSums& sums, int first, SuperTile& now) {
    float curvature[kGroups], minima[kGroups];
    for (int j = 0; j < kGroups; ++j) {
      const int at = first + j;
      curvature[j] = G::kMinimum ? sums.l2[at] - sums.l[at] * sums.l[at] / sums.w[at] : sums.l2[at];
    }
    const float d = fit_unit<kGroups>(lines.d + first, curvature, Where::kScaleReaches, Coding::kLow, Coding::kHigh, now.scale + first);
    float dmin = 0;
    if constexpr (G::kMinimum) {
      for (int j = 0; j < kGroups; ++j) {  // the minimum makes up for what the scale's rounding did
        const int at = first + j;
        const float m = lines.m[at] + sums.l[at] / sums.w[at] * (lines.d[at] - d * now.scale[at]);
        minima[j] = m < 0 ? -m : 0;
      }
      dmin = fit_unit<kGroups>(minima, sums.w + first, Where::kScaleReaches, 0, Coding::kHigh, now.min + first);
    }
    for (int j = 0; j < kGroups; ++j) {
      now.d[first + j] = d;
      now.dmin[first + j] = dmin;
      if (!G::kMinimum) now.min[first + j] = 0;
    }
  }

  // The neighbours of each lane's numbers, by the error that the group then has.
  POCKETLM_LANES static void choose_scales(const Tile<kGroup>& t, int lane, SuperTile& now, float* error) {
    const Floats d = load(&now.d[lane]), dmin = load(&now.dmin[lane]);
    const Floats scale = load(&now.scale[lane]), least = load(&now.min[lane]);
    Floats best = splat(__builtin_inff()), best_scale = scale, best_min = least;
    for (int ds = -1; ds <= 1; ++ds)
      for (int dm = G::kMinimum ? -1 : 0; dm <= (G::kMinimum ? 1 : 0); ++dm) {
        const Floats s = min(max(scale + float(ds), splat(Coding::kLow)), splat(Coding::kHigh));
        const Floats m = min(max(least + float(dm), Floats{}), splat(Coding::kHigh));
        const Floats found = G::error(t, lane, {d * s, -(dmin * m)});
        const Ints better = found < best;
        best = select(better, found, best);
        best_scale = select(better, s, best_scale);
        best_min = select(better, m, best_min);
      }
    store(&now.scale[lane], best_scale);
    store(&now.min[lane], best_min);
    store(error + lane, best);
  }

  static float total(const float* error, int super) {
    float sum = 0;
    for (int j = 0; j < kGroups; ++j) sum += error[super * kGroups + j];
    return sum;
  }

  static void keep_better(const SuperTile& now, const float* error, SuperTile& best, float* best_error, bool first) {
    for (int super = 0; super < kSupers; ++super) {
      if (!first && !(total(error, super) < total(best_error, super))) continue;
      for (int at = super * kGroups; at < (super + 1) * kGroups; ++at) {
        best.d[at] = now.d[at];
        best.dmin[at] = now.dmin[at];
        best.scale[at] = now.scale[at];
        best.min[at] = now.min[at];
        best_error[at] = error[at];
      }
    }
  }

  // d and dmin by least squares over the super-block, codes and groups' numbers as they are.
  static void refit(const Tile<kGroup>& t, SuperTile& now) {
    GroupSums sums;
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      const GroupSearch<G, kGroup> search(t, lane);
      const Floats d = load(&now.d[lane]) * load(&now.scale[lane]), m = load(&now.dmin[lane]) * load(&now.min[lane]);
      store_sums(search, lane, {d, -m}, sums);
    }
    for (int super = 0; super < kSupers; ++super) refit_super(sums, super * kGroups, now);
  }

  static void refit_super(const GroupSums& sums, int first, SuperTile& now) {
    float ss = 0, sm = 0, mm = 0, sx = 0, mx = 0;
    for (int at = first; at < first + kGroups; ++at) {
      const float s = now.scale[at], m = now.min[at];
      ss += s * s * sums.l2[at];
      sx += s * sums.xl[at];
      sm += s * m * sums.l[at];
      mm += m * m * sums.w[at];
      mx += m * sums.x[at];
    }
    const float determinant = ss * mm - sm * sm;
    float d = sx / ss, dmin = now.dmin[first];
    if (G::kMinimum && determinant > 1e-6f * (ss * mm)) {
      d = (sx * mm - mx * sm) / determinant;
      dmin = (sx * sm - mx * ss) / determinant;
    } else if (G::kMinimum) {
      d = now.d[first];
    }
    const auto sound = [](float x) { return x < 65504.0f && x > -65504.0f; };
    if (!sound(d) || !sound(dmin)) return;
    for (int at = first; at < first + kGroups; ++at) {
      now.d[at] = in_half(d);
      now.dmin[at] = in_half(dmin);
    }
  }

  static void reference_error(const Tile<kGroup>& t, const Codes<kGroup>& codes, const SuperScales* supers, float* error) {
    Scales lines;
    for (int at = 0; at < kLanes; ++at) {
      const SuperScales& s = supers[at / kGroups];
      const int stored = s.scale[at % kGroups], wraps = Coding::kOffset == 0 && Coding::kLow < 0;
      lines.d[at] = from_half(s.d) * float(wraps ? int(int8_t(stored)) : stored - Coding::kOffset);
      lines.m[at] = -(from_half(s.dmin) * float(s.min[at % kGroups]));
    }
    for (int lane = 0; lane < kLanes; lane += kWidth)
      store(error + lane, G::template coded_error<-G::kLow>(t, lane, {load(&lines.d[lane]), load(&lines.m[lane])}, codes));
  }

  // Writes what was found, or the reference where that is as good.
  static void finish(Tile<kGroup>& t, const SuperTile& best, const float* best_error, Codes<kGroup>& codes, SuperScales* supers) {
    Codes<kGroup> searched;
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      const Floats d = load(&best.d[lane]) * load(&best.scale[lane]), m = load(&best.dmin[lane]) * load(&best.min[lane]);
      G::encode(t, lane, {d, -m}, -G::kLow, searched);
    }
    alignas(64) float reference[kLanes];
    Tile<kGroup> copy = t;  // the reference has weights of its own
    Reference::encode(copy, codes, supers);
    reference_error(t, codes, supers, reference);
    for (int super = 0; super < kSupers; ++super) {
      if (!(total(best_error, super) < total(reference, super))) continue;
      const int first = super * kGroups;
      for (int i = 0; i < kGroup; ++i) std::memcpy(&codes.of[i][first], &searched.of[i][first], kGroups);
      SuperScales& s = supers[super];
      s.d = to_half(best.d[first]);
      s.dmin = to_half(best.dmin[first]);
      for (int j = 0; j < kGroups; ++j) {
        s.scale[j] = uint8_t(int(best.scale[first + j]) + Coding::kOffset);
        s.min[j] = uint8_t(int(best.min[first + j]));
      }
    }
  }
};

// Where the search looks, in codes and in steps of a group's scale.
struct Settings2K {
  static constexpr float kMargins[] = {-0.4f, -0.2f, 0.0f, 0.2f, 0.4f, 0.7f};
  static constexpr float kScaleReaches[] = {9.0f, 9.5f, 10.0f, 10.5f, 11.0f, 11.5f, 12.0f, 12.3f, 12.7f, 13.0f, 13.3f, 13.7f,
                                            14.0f, 14.3f, 14.6f, 14.8f, 15.0f, 15.2f, 15.4f};
  static constexpr int kRounds = 3, kSuperRounds = 3;
};
struct Settings6Bit {
  static constexpr float kScaleReaches[] = {45.0f, 46.0f, 47.0f, 48.0f, 49.0f, 50.0f, 51.0f, 52.0f, 53.0f, 54.0f, 55.0f, 56.0f,
                                            57.0f, 58.0f, 59.0f, 60.0f, 60.5f, 61.0f, 61.5f, 62.0f, 62.5f, 63.0f, 63.3f};
  static constexpr int kRounds = 3, kSuperRounds = 2;
};
struct Settings4K : Settings6Bit {
  static constexpr float kMargins[] = {-0.3f, 0.0f, 0.3f, 0.7f, 1.2f, 2.0f};
};
struct Settings5K : Settings4K {};
struct Settings3K {
  static constexpr float kReaches[] = {-5.2f, -4.9f, -4.6f, -4.35f, -4.1f, -3.85f, -3.6f, -3.3f, -3.0f,
                                       2.2f,  2.5f,  2.75f, 3.0f,   3.25f, 3.5f,   3.8f,  4.2f,  4.7f};
  static constexpr float kScaleReaches[] = {-32.4f, -32.0f, -31.5f, -31.0f, -30.5f, -30.0f, -29.0f, -28.0f, -27.0f, -26.0f,
                                            -25.0f, -24.0f, 24.0f, 25.0f, 26.0f, 27.0f, 28.0f, 29.0f, 30.0f, 30.5f, 31.0f, 31.3f};
  static constexpr int kRounds = 3, kSuperRounds = 2;
};
struct Settings6K {
  static constexpr float kReaches[] = {-38.0f, -35.5f, -34.0f, -33.2f, -32.7f, -32.3f, -32.0f, -31.7f, -31.4f, -31.0f, -30.5f, -30.0f,
                                       29.3f,  29.8f,  30.3f,  30.7f,  31.1f,  31.5f,  32.1f,  33.0f,  34.5f,  37.0f};
  static constexpr float kScaleReaches[] = {-128.3f, -127.0f, -125.0f, -123.0f, -120.0f, -116.0f, -112.0f, -108.0f, -104.0f, -100.0f,
                                            100.0f, 104.0f, 108.0f, 112.0f, 116.0f, 120.0f, 123.0f, 125.0f, 127.0f, 127.3f};
  static constexpr int kRounds = 2, kSuperRounds = 2;
};

using SearchQ2_K = SearchSuper<BlockQ2_K, Grid<0, 3, true>, ScaleCoding<0, 15, 0>, NearestQ2_K, Settings2K>;
using SearchQ3_K = SearchSuper<BlockQ3_K, Grid<-4, 3, false>, ScaleCoding<-32, 31, 32>, NearestQ3_K, Settings3K>;
using SearchQ4_K = SearchSuper<BlockQ4_K, Grid<0, 15, true>, ScaleCoding<0, 63, 0>, NearestQ4_K, Settings4K>;
using SearchQ5_K = SearchSuper<BlockQ5_K, Grid<0, 31, true>, ScaleCoding<0, 63, 0>, NearestQ5_K, Settings5K>;
using SearchQ6_K = SearchSuper<BlockQ6_K, Grid<-32, 31, false>, ScaleCoding<-128, 127, 0>, NearestQ6_K, Settings6K>;

}  // namespace
}  // namespace pocketlm
