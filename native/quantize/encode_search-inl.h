// The scale (and minimum) of least weighted squared error for groups of weights, in lanes (encode_lanes-inl.h).
//
// For given codes l the best scale is a least squares fit, so only codes have to be searched: those that a grid of scales
// rounds to, scored by the error that is left after the fit, then the fit and the rounding in turn, from the best on.
#pragma once

#include "quantize/encode_nearest-inl.h"

namespace pocketlm {
namespace {

POCKETLM_LANES Floats select(Ints mask, Floats a, Floats b) { return mask ? a : b; }

POCKETLM_LANES Floats finite_inverse(Floats d) {
  const Floats inverse = 1.0f / d;
  return is_finite(inverse) ? inverse : Floats{};
}

// A weight is d * l + m, l in kLow..kHigh.
struct Line {
  Floats d, m;
};

// Sums over a group: w l, w l^2, w l x; where there is a minimum, x is taken relative to its weighted mean, which keeps
// the digits that a difference of large sums would lose.
struct Moments {
  Floats l, l2, xl;
};

template <int kLowCode, int kHighCode, bool kWithMinimum>
struct Grid {
  static constexpr int kLow = kLowCode, kHigh = kHighCode;
  static constexpr bool kMinimum = kWithMinimum;

  // The code nearest to x / d, as a float: a code whatever is given, NaN too.
  POCKETLM_LANES static Floats code(Floats scaled) {
    return nearest(min(max(scaled, splat(float(kLow))), splat(float(kHigh))));
  }

  template <int N>
  POCKETLM_LANES static Floats error(const Tile<N>& t, int lane, Line line) {
    const Floats inverse = finite_inverse(line.d);
    Floats sum = {};
    for (int i = 0; i < N; ++i) {
      const Floats x = load(&t.x[i][lane]);
      const Floats rest = line.d * code((x - line.m) * inverse) + line.m - x;
      sum += load(&t.w[i][lane]) * (rest * rest);
    }
    return sum;
  }

  // Of codes as they are, stored with kOffset (0: modulo 256).
  template <int kOffset, int N>
  POCKETLM_LANES static Floats coded_error(const Tile<N>& t, int lane, Line line, const Codes<N>& codes) {
    Floats sum = {};
    for (int i = 0; i < N; ++i) {
      const Ints stored = load_codes(&codes.of[i][lane]);
      const Ints l = kOffset == 0 && kLow < 0 ? stored << 24 >> 24 : stored - kOffset;
      const Floats rest = line.d * to_floats(l) + line.m - load(&t.x[i][lane]);
      sum += load(&t.w[i][lane]) * (rest * rest);
    }
    return sum;
  }

  // Stores the nearest codes, plus `offset`, and gives their error.
  template <int N>
  POCKETLM_LANES static Floats encode(const Tile<N>& t, int lane, Line line, int offset, Codes<N>& codes) {
    const Floats inverse = finite_inverse(line.d);
    Floats sum = {};
    for (int i = 0; i < N; ++i) {
      const Floats x = load(&t.x[i][lane]), l = code((x - line.m) * inverse), rest = line.d * l + line.m - x;
      sum += load(&t.w[i][lane]) * (rest * rest);
      store_codes(&codes.of[i][lane], (truncate(l) + offset) & 255);
    }
    return sum;
  }
};

// The search in one group.
template <class G, int N>
struct GroupSearch {
  const Tile<N>& t;
  const int lane;
  Floats sum_w = {}, center = {};

  POCKETLM_LANES GroupSearch(const Tile<N>& tile, int first) : t(tile), lane(first) {
    if constexpr (G::kMinimum) {
      Floats sum_x = {};
      for (int i = 0; i < N; ++i) {
        sum_w += load(&t.w[i][lane]);
        sum_x += load(&t.w[i][lane]) * load(&t.x[i][lane]);
      }
      center = sum_x / sum_w;
    }
  }

  // Of the codes nearest to x * factor + shift.
  POCKETLM_LANES Moments moments(Floats factor, Floats shift) const {
    Moments s{};
    for (int i = 0; i < N; ++i) {
      const Floats x = load(&t.x[i][lane]), w = load(&t.w[i][lane]);
      const Floats l = G::code(G::kMinimum ? x * factor + shift : x * factor), wl = w * l;
      if constexpr (G::kMinimum) s.l += wl;
      s.l2 += wl * l;
      s.xl += wl * (G::kMinimum ? x - center : x);
    }
    return s;
  }

  // By how much the fitted line lowers the squared error.
  POCKETLM_LANES Floats gain(const Moments& s) const {
    if constexpr (G::kMinimum) return s.xl * s.xl / (s.l2 - s.l * s.l / sum_w);
    return s.xl * s.xl / s.l2;
  }

  POCKETLM_LANES Line fitted(const Moments& s) const {
    if constexpr (!G::kMinimum) return {s.xl / s.l2, Floats{}};
    const Floats d = s.xl / (s.l2 - s.l * s.l / sum_w);
    return {d, center - d * (s.l / sum_w)};
  }

  // Where a fit is not defined (all codes the same), the line before it is kept.
  POCKETLM_LANES Line refined(Line line, int rounds) const {
    for (int round = 0; round < rounds; ++round) {
      const Floats inverse = finite_inverse(line.d);
      const Line next = fitted(moments(inverse, -line.m * inverse));
      const Ints sound = is_finite(next.d) & is_finite(next.m);
      line = {select(sound, next.d, line.d), select(sound, next.m, line.m)};
    }
    return line;
  }

  struct Candidate {
    Floats gain, factor, shift;
  };

  POCKETLM_LANES void consider(Candidate& best, Floats factor, Floats shift) const {
    const Floats found = gain(moments(factor, shift));
    const Ints better = found > best.gain;  // false for what is no number
    best = {select(better, found, best.gain), select(better, factor, best.factor), select(better, shift, best.shift)};
  }

  // The best line through 0 over scales that put the extreme weight at `reach`, for every entry of a list.
  template <class Reaches>
  POCKETLM_LANES Line best_scale(const Reaches& reaches) const {
    const Floats unit = finite_inverse(extreme(t, lane));
    Candidate best{};
    for (const float reach : reaches) consider(best, unit * reach, Floats{});
    return line_of(best);
  }

  // The best line over those that put the least weight `below` codes under code kLow and the largest one `above` over
  // kHigh, for all pairs of a list.
  template <class Margins>
  POCKETLM_LANES Line best_line(const Margins& margins) const {
    Floats least = load(&t.x[0][lane]), most = least;
    for (int i = 1; i < N; ++i) {
      least = min(load(&t.x[i][lane]), least);
      most = max(load(&t.x[i][lane]), most);
    }
    const Floats unit = finite_inverse(most - least);
    Candidate best{};
    for (const float below : margins)
      for (const float above : margins) {
        const Floats factor = unit * (float(G::kHigh - G::kLow) + below + above);
        consider(best, factor, float(G::kLow) - below - least * factor);
      }
    return line_of(best);
  }

  POCKETLM_LANES Line line_of(const Candidate& best) const {
    const Line line = fitted(moments(best.factor, best.shift));
    const Ints sound = (best.gain > 0.0f) & is_finite(line.d) & is_finite(line.m);
    return {select(sound, line.d, Floats{}), select(sound, line.m, center)};
  }
};

// --- types of one scale -------------------------------------------------------------------------------------------------

POCKETLM_LANES Line in_halves(Line line) {
  return {from_halves(to_halves(line.d)), from_halves(to_halves(line.m))};
}

// An encoder of encode_groups: searches, and keeps the result where its error is less than that of Nearest.
// kOffset: what is added to a code to store it.
template <class G, class Nearest, int kOffset, class Settings>
struct SearchGroups {
  static constexpr bool kWeighted = true;

  template <int N>
  static void encode(const Tile<N>& t, int lane, Codes<N>& codes, Scales& scales) {
    const GroupSearch<G, N> search(t, lane);
    Line line;
    if constexpr (G::kMinimum) line = search.best_line(Settings::kMargins);
    else line = search.best_scale(Settings::kReaches);
    line = in_halves(search.refined(line, Settings::kRounds));
    Codes<N> searched;
    const Floats found = G::encode(t, lane, line, kOffset, searched);

    Nearest::encode(t, lane, codes, scales);
    const Line reference{load(&scales.d[lane]), G::kMinimum ? load(&scales.m[lane]) : Floats{}};
    const Ints better = found < G::template coded_error<kOffset>(t, lane, in_halves(reference), codes);
    for (int i = 0; i < N; ++i) {
      const Ints a = load_codes(&searched.of[i][lane]), b = load_codes(&codes.of[i][lane]);
      store_codes(&codes.of[i][lane], better ? a : b);
    }
    store(&scales.d[lane], select(better, line.d, reference.d));
    if constexpr (G::kMinimum) store(&scales.m[lane], select(better, line.m, reference.m));
  }
};

// Where the search looks. Margins and reaches are in codes.
// Reaches below zero put the extreme at the low end of the codes, the longer one; symmetric codes need one sign only.
struct Settings4 {
  static constexpr float kReaches[] = {-10.2f, -9.4f, -8.8f, -8.4f, -8.0f, -7.7f, -7.4f, -7.0f, -6.4f,
                                       6.0f,   6.5f,  6.9f,  7.2f,  7.5f,  7.9f,  8.5f,  9.2f};
  static constexpr float kMargins[] = {-0.3f, 0.0f, 0.3f, 0.7f, 1.2f, 2.0f};
  static constexpr int kRounds = 3;
};
struct Settings5 {
  static constexpr float kReaches[] = {-20.0f, -18.4f, -17.4f, -16.8f, -16.4f, -16.1f, -15.8f, -15.5f, -15.2f, -14.8f,
                                       14.4f,  14.8f,  15.1f,  15.4f,  15.7f,  16.2f,  17.0f,  18.0f,  19.5f};
  static constexpr float kMargins[] = {-0.3f, 0.0f, 0.3f, 0.7f, 1.2f, 2.0f};
  static constexpr int kRounds = 3;
};
struct Settings8 {
  static constexpr float kReaches[] = {124.2f, 124.8f, 125.4f, 126.0f, 126.5f, 127.0f, 127.4f, 128.0f};
  static constexpr int kRounds = 1;
};
struct SettingsTernary {
  static constexpr float kReaches[] = {0.8f, 1.0f, 1.3f, 1.6f, 1.9f, 2.3f, 2.8f, 3.5f};
  static constexpr int kRounds = 3;
};

}  // namespace
}  // namespace pocketlm
