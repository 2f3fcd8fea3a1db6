// ggml's reference for the K types, in lanes (encode_lanes-inl.h): a small search of the scale (and minimum) of each
// group of 16 or 32 weights, then 4 to 8 bits for each group's scale beside one f16 for the super-block, then the codes
// again with the scales that came of it. Float operations in ggml-quants.c's order: bytes are compared with it.
#pragma once

#include "quantize/encode_blocks-inl.h"
#include "quantize/encode_nearest-inl.h"

namespace pocketlm {
namespace {

// Below this a group counts as zeros.
constexpr float kTiny = 1e-15f;

POCKETLM_LANES int nearest_int_of(float x) {
  const float sum = x + 12582912.0f;
  uint32_t bits;
  std::memcpy(&bits, &sum, 4);
  return int(bits & 0x007fffff) - 0x00400000;
}

// --- groups ------------------------------------------------------------------------------------------------------------

// x = d * code - m with codes 0..kTop and m >= 0: candidates of the scale around (max - min) / kTop, each refitted by
// weighted least squares (tile.w), the best by weighted squared error, or absolute error. make_qkx2_quants of ggml.
template <int kTop, int kSteps, bool kAbsolute>
struct AffineGroup {
  float first_step;

  template <int N>
  POCKETLM_LANES void fit(const Tile<N>& t, int lane, Codes<N>& codes, Scales& scales) const {
    Floats least = load(&t.x[0][lane]), most = least, sum_w = load(&t.w[0][lane]), sum_x = sum_w * least;
    for (int i = 1; i < N; ++i) {
      const Floats x = load(&t.x[i][lane]), w = load(&t.w[i][lane]);
      least = min(x, least);
      most = max(x, most);
      sum_w += w;
      sum_x += w * x;
    }
    least = least > 0.0f ? Floats{} : least;
    const Ints flat = most == least;
    const Floats lowest = least;

    Floats inverse = float(kTop) / (most - least);  // of the codes that are kept
    Floats scale = 1.0f / inverse, rounded_from = least, best = {};
    for (int i = 0; i < N; ++i) {
      const Floats x = load(&t.x[i][lane]);
      best += load(&t.w[i][lane]) * error(scale * code(x, inverse, least) + least - x);
    }
    for (int step = 0; step <= kSteps; ++step) {
      const Floats factor = (first_step + 0.1f * float(step) + float(kTop)) / (most - least);
      Floats l[N], sum_l = {}, sum_l2 = {}, sum_xl = {};
      for (int i = 0; i < N; ++i) {
        const Floats x = load(&t.x[i][lane]);
        l[i] = code(x, factor, least);
        const Floats wl = load(&t.w[i][lane]) * l[i];
        sum_l += wl;
        sum_l2 += wl * l[i];
        sum_xl += wl * x;
      }
      const Floats determinant = sum_w * sum_l2 - sum_l * sum_l;
      Floats d = (sum_w * sum_xl - sum_x * sum_l) / determinant;
      Floats m = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
      const Ints above = m > 0.0f;
      d = above ? sum_xl / sum_l2 : d;
      m = above ? Floats{} : m;
      Floats found = {};
      for (int i = 0; i < N; ++i) found += load(&t.w[i][lane]) * error(d * l[i] + m - load(&t.x[i][lane]));
      const Ints better = (determinant > 0.0f) & (found < best);
      best = better ? found : best;
      scale = better ? d : scale;
      inverse = better ? factor : inverse;
      rounded_from = better ? least : rounded_from;
      least = better ? m : least;  // and later candidates start from here
    }
    for (int i = 0; i < N; ++i)
      store_codes(&codes.of[i][lane], ~flat & int_code(load(&t.x[i][lane]), inverse, rounded_from));
    store(&scales.d[lane], flat ? Floats{} : scale);
    store(&scales.m[lane], flat ? -lowest : -least);
  }

  POCKETLM_LANES static Ints int_code(Floats x, Floats inverse, Floats least) {
    return clamp(nearest_int(inverse * (x - least)), 0, kTop);
  }
  POCKETLM_LANES static Floats code(Floats x, Floats inverse, Floats least) { return to_floats(int_code(x, inverse, least)); }
  POCKETLM_LANES static Floats error(Floats difference) { return kAbsolute ? abs(difference) : difference * difference; }
};

// x = d * code with codes -kHalf..kHalf - 1 (stored + kHalf), weighted by x^2: candidates around -extreme / kHalf.
// make_qx_quants of ggml.
template <int kHalf>
struct SignedGroup {
  template <int N>
  POCKETLM_LANES static void fit(const Tile<N>& t, int lane, Codes<N>& codes, Scales& scales) {
    const Floats largest = extreme(t, lane);
    const Ints zero = abs(largest) < kTiny;
    Floats inverse = float(-kHalf) / largest, scale, best;
    const auto [xl, l2] = sums(t, lane, inverse);
    scale = l2 != 0.0f ? xl / l2 : Floats{};
    best = scale * xl;
    for (int step = -9; step <= 9; ++step) {
      if (step == 0) continue;
      const Floats factor = -(float(kHalf) + 0.1f * float(step)) / largest;
      const auto [sum_xl, sum_l2] = sums(t, lane, factor);
      const Ints better = (sum_l2 > 0.0f) & (sum_xl * sum_xl > best * sum_l2);
      const Floats d = sum_xl / sum_l2;
      inverse = better ? factor : inverse;
      scale = better ? d : scale;
      best = better ? d * sum_xl : best;
    }
    for (int i = 0; i < N; ++i)
      store_codes(&codes.of[i][lane], ~zero & (code(load(&t.x[i][lane]), inverse) + kHalf));
    store(&scales.d[lane], zero ? Floats{} : scale);
  }

  struct Sums {
    Floats xl, l2;
  };

  POCKETLM_LANES static Ints code(Floats x, Floats inverse) { return clamp(nearest_int(inverse * x), -kHalf, kHalf - 1); }

  template <int N>
  POCKETLM_LANES static Sums sums(const Tile<N>& t, int lane, Floats inverse) {
    Sums s{};
    for (int i = 0; i < N; ++i) {
      const Floats x = load(&t.x[i][lane]), l = to_floats(code(x, inverse)), w = x * x;
      s.xl += w * x * l;
      s.l2 += w * l * l;
    }
    return s;
  }
};

// The same form, weighted by x^2, found by changing one code at a time while that raises (sum w x l)^2 / sum w l^2.
// make_q3_quants of ggml.
template <int kHalf>
struct DescentGroup {
  static constexpr int kPasses = 5;

  template <int N>
  POCKETLM_LANES static void fit(const Tile<N>& t, int lane, Codes<N>& codes, Scales& scales) {
    const Floats largest = extreme(t, lane);
    const Ints zero = abs(largest) < kTiny;
    const Floats inverse = float(-kHalf) / largest;
    Floats l[N], xl = {}, l2 = {};
    for (int i = 0; i < N; ++i) {
      const Floats x = load(&t.x[i][lane]), w = x * x;
      l[i] = rounded(inverse * x);
      xl += w * x * l[i];
      l2 += w * l[i] * l[i];
    }
    for (int pass = 0; pass < kPasses; ++pass)
      for (int i = 0; i < N; ++i) improve(load(&t.x[i][lane]), l[i], xl, l2);
    for (int i = 0; i < N; ++i)
      store_codes(&codes.of[i][lane], ~zero & (truncate(l[i]) + kHalf));
    store(&scales.d[lane], ~zero & (l2 > 0.0f) ? xl / l2 : Floats{});
  }

  POCKETLM_LANES static Floats rounded(Floats x) { return to_floats(clamp(nearest_int(x), -kHalf, kHalf - 1)); }

  POCKETLM_LANES static void improve(Floats x, Floats& l, Floats& xl, Floats& l2) {
    const Floats w = x * x, rest_xl = xl - w * x * l, rest_l2 = l2 - w * l * l;
    const Floats other = rounded(x * rest_l2 / rest_xl);
    const Floats new_xl = rest_xl + w * x * other, new_l2 = rest_l2 + w * other * other;
    const Ints better = (rest_xl > 0.0f) & (other != l) & (new_l2 > 0.0f) & (new_xl * new_xl * l2 > xl * xl * new_l2);
    l = better ? other : l;
    xl = better ? new_xl : xl;
    l2 = better ? new_l2 : l2;
  }
};

// --- super-blocks --------------------------------------------------------------------------------------------------------

// Scales and minima of a super-block's groups, from lane `first` on, in kBits bits beside d and dmin; what a decoder makes
// of them goes to `decoded`.
template <int kGroups, int kBits>
SuperScales code_affine_scales(const Scales& groups, int first, Scales& decoded) {
  constexpr int kTop = (1 << kBits) - 1;
  SuperScales s;
  const auto code = [&](const float* values, uint8_t* codes) {
    float most = 0;
    for (int j = 0; j < kGroups; ++j) most = values[j] > most ? values[j] : most;
    const float inverse = most > 0 ? float(kTop) / most : 0.0f;
    for (int j = 0; j < kGroups; ++j) {
      const auto l = uint8_t(nearest_int_of(inverse * values[j]));
      codes[j] = l < kTop ? l : uint8_t(kTop);
    }
    return to_half(most / float(kTop));
  };
  s.d = code(groups.d + first, s.scale);
  s.dmin = code(groups.m + first, s.min);
  const float d = from_half(s.d), dmin = from_half(s.dmin);
  for (int j = 0; j < kGroups; ++j) {
    decoded.d[first + j] = d * float(s.scale[j]);
    decoded.m[first + j] = dmin * float(s.min[j]);
  }
  return s;
}

// Signed scales of sixteen groups: -2^(kBits-1) for the largest, stored with kOffset.
template <int kBits, int kOffset>
SuperScales code_signed_scales(const Scales& groups, Scales& decoded) {
  constexpr int kHalf = 1 << (kBits - 1);
  SuperScales s;
  float magnitude = 0, largest = 0;
  for (const float scale : groups.d) {
    const float a = scale < 0 ? -scale : scale;
    if (a > magnitude) {
      magnitude = a;
      largest = scale;
    }
  }
  const float inverse = largest != 0 ? float(-kHalf) / largest : 0.0f;
  s.d = largest != 0 ? to_half(1.0f / inverse) : uint16_t(0);
  const float d = from_half(s.d);
  for (int j = 0; j < kLanes; ++j) {
    int l = nearest_int_of(inverse * groups.d[j]);
    l = l < -kHalf ? -kHalf : l > kHalf - 1 ? kHalf - 1 : l;
    s.scale[j] = uint8_t(largest != 0 ? l + kOffset : 0);
    decoded.d[j] = largest != 0 ? d * float(l) : 0.0f;
  }
  return s;
}

// Codes once more, where the group's scale is not 0.
template <int N>
POCKETLM_LANES void round_affine(const Tile<N>& t, int lane, const Scales& decoded, int top, Codes<N>& codes) {
  const Floats d = load(&decoded.d[lane]), m = load(&decoded.m[lane]);
  for (int i = 0; i < N; ++i) {
    const Ints l = clamp(nearest_int((load(&t.x[i][lane]) + m) / d), 0, top);
    store_codes(&codes.of[i][lane], d != 0.0f ? l : load_codes(&codes.of[i][lane]));
  }
}

template <int N>
POCKETLM_LANES void round_signed(const Tile<N>& t, int lane, const Scales& decoded, int half, Codes<N>& codes) {
  const Floats d = load(&decoded.d[lane]);
  for (int i = 0; i < N; ++i) {
    const Ints l = clamp(nearest_int(load(&t.x[i][lane]) / d), -half, half - 1) + half;
    store_codes(&codes.of[i][lane], d != 0.0f ? l : load_codes(&codes.of[i][lane]));
  }
}

// --- types -----------------------------------------------------------------------------------------------------------------

// Weights of the error of Q2_K's groups, and of Q4_K's and Q5_K's.
template <int N>
POCKETLM_LANES void weigh_by_magnitude(Tile<N>& t, int lane, bool add_mean) {
  Floats mean = {};
  if (add_mean) {
    for (int i = 0; i < N; ++i) mean += load(&t.x[i][lane]) * load(&t.x[i][lane]);
    mean = sqrt(mean / float(N));
  }
  for (int i = 0; i < N; ++i) store(&t.w[i][lane], mean + abs(load(&t.x[i][lane])));
}

template <class BlockType, int kTop, int kSteps, int kBits>
struct NearestAffineSuper {
  using Block = BlockType;
  static constexpr bool kWeighted = false, kQ2 = kTop == 3;
  static constexpr int kGroup = kQ2 ? 16 : 32, kGroups = 256 / kGroup;
  // -1 for Q4_K, -0.5 for the others.
  static constexpr float kFirstStep = kTop == 15 ? -1.0f : -0.5f;

  static void encode(Tile<kGroup>& t, Codes<kGroup>& codes, SuperScales* supers) {
    Scales groups, decoded;
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      weigh_by_magnitude(t, lane, !kQ2);
      AffineGroup<kTop, kSteps, kQ2>{kFirstStep}.fit(t, lane, codes, groups);
    }
    for (int i = 0; i < kLanes / kGroups; ++i) supers[i] = code_affine_scales<kGroups, kBits>(groups, i * kGroups, decoded);
    for (int lane = 0; lane < kLanes; lane += kWidth) round_affine(t, lane, decoded, kTop, codes);
  }
};

template <class BlockType, class Group, int kHalf, int kBits, int kOffset>
struct NearestSignedSuper {
  using Block = BlockType;
  static constexpr bool kWeighted = false;
  static constexpr int kGroup = 16, kGroups = 16;

  static void encode(Tile<kGroup>& t, Codes<kGroup>& codes, SuperScales* super) {
    Scales groups, decoded;
    for (int lane = 0; lane < kLanes; lane += kWidth) Group::fit(t, lane, codes, groups);
    *super = code_signed_scales<kBits, kOffset>(groups, decoded);
    for (int lane = 0; lane < kLanes; lane += kWidth) round_signed(t, lane, decoded, kHalf, codes);
  }
};

using NearestQ2_K = NearestAffineSuper<BlockQ2_K, 3, 15, 4>;
using NearestQ4_K = NearestAffineSuper<BlockQ4_K, 15, 20, 6>;
using NearestQ5_K = NearestAffineSuper<BlockQ5_K, 31, 15, 6>;
using NearestQ3_K = NearestSignedSuper<BlockQ3_K, DescentGroup<4>, 4, 6, 32>;

// Q6_K leaves nothing of a block whose scales are all tiny.
struct NearestQ6_K : NearestSignedSuper<BlockQ6_K, SignedGroup<32>, 32, 8, 0> {
  static void encode(Tile<kGroup>& t, Codes<kGroup>& codes, SuperScales* super) {
    Scales groups, decoded;
    for (int lane = 0; lane < kLanes; lane += kWidth) SignedGroup<32>::fit(t, lane, codes, groups);
    bool tiny = true;
    for (const float scale : groups.d) tiny = tiny && scale < kTiny && scale > -kTiny;
    if (tiny) {
      *super = {};
      std::memset(&codes, 0, sizeof(codes));
      return;
    }
    *super = code_signed_scales<8, 0>(groups, decoded);
    for (int lane = 0; lane < kLanes; lane += kWidth) round_signed(t, lane, decoded, 32, codes);
  }
};

}  // namespace
}  // namespace pocketlm
