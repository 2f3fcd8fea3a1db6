// ggml's reference rounding for the types with one scale (and minimum) for a block, in lanes (encode_lanes-inl.h).
// The order of the float operations, and which way ties go, are ggml-quants.c's: bytes are compared with it.
#pragma once

#include "quantize/encode_lanes-inl.h"

namespace pocketlm {
namespace {

// What lanes [first, first + kWidth) of a tile have in common: a weight is x = d * code + m.
struct Scales {
  alignas(64) float d[kLanes];
  alignas(64) float m[kLanes];
};

POCKETLM_LANES Floats inverse_or_zero(Floats d) { return d != 0.0f ? 1.0f / d : Floats{}; }

// A subnormal scale has no finite inverse. The reference then converts infinities to integers; what x86 makes of them
// (0 in the low byte) is taken for the definition, and nothing undefined is computed.
POCKETLM_LANES Ints is_finite(Floats x) { return (bits_of(x) & 0x7f800000) != 0x7f800000; }

POCKETLM_LANES Ints truncate(Floats x) { return __builtin_convertvector(x, Ints); }

// roundf: ties away from zero.
POCKETLM_LANES Ints round_away(Floats x) {
  const Ints whole = truncate(x);
  const Floats rest = x - to_floats(whole);
  return whole + (rest >= 0.5f ? splat_int(1) : Ints{}) - (rest <= -0.5f ? splat_int(1) : Ints{});
}

template <int N>
POCKETLM_LANES Floats largest_magnitude(const Tile<N>& t, int lane) {
  Floats most = {};
  for (int i = 0; i < N; ++i) most = max(abs(load(&t.x[i][lane])), most);
  return most;
}

// The first of the weights of largest magnitude, with its sign.
template <int N>
POCKETLM_LANES Floats extreme(const Tile<N>& t, int lane) {
  Floats most = {}, value = {};
  for (int i = 0; i < N; ++i) {
    const Floats x = load(&t.x[i][lane]), magnitude = abs(x);
    value = magnitude > most ? x : value;
    most = max(magnitude, most);
  }
  return value;
}

// Codes 0..2 kHalf - 1 around kHalf; the extreme gets code 0. Q4_0, Q5_0.
template <int kHalf>
struct NearestSigned {
  static constexpr bool kWeighted = false;
  template <int N>
  static void encode(const Tile<N>& t, int lane, Codes<N>& codes, Scales& scales) {
    const Floats d = extreme(t, lane) / float(-kHalf);
    const Floats inverse = inverse_or_zero(d);
    const Ints sound = is_finite(inverse);
    const Floats factor = sound ? inverse : Floats{};
    for (int i = 0; i < N; ++i) {
      const Ints code = truncate(load(&t.x[i][lane]) * factor + (float(kHalf) + 0.5f));
      store_codes(&codes.of[i][lane], sound & clamp(code, 0, 2 * kHalf - 1));
    }
    store(&scales.d[lane], d);
  }
};

// Codes 0..kTop above the minimum. Q4_1, Q5_1.
template <int kTop>
struct NearestAffine {
  static constexpr bool kWeighted = false;
  template <int N>
  static void encode(const Tile<N>& t, int lane, Codes<N>& codes, Scales& scales) {
    Floats least = load(&t.x[0][lane]), most = least;
    for (int i = 1; i < N; ++i) {
      const Floats x = load(&t.x[i][lane]);
      least = min(x, least);
      most = max(x, most);
    }
    const Floats d = (most - least) / float(kTop);
    const Floats inverse = inverse_or_zero(d);
    const Ints sound = is_finite(inverse);
    const Floats factor = sound ? inverse : Floats{};
    for (int i = 0; i < N; ++i) {
      const Ints code = truncate((load(&t.x[i][lane]) - least) * factor + 0.5f);
      store_codes(&codes.of[i][lane], sound & clamp(code, 0, kTop));
    }
    store(&scales.d[lane], d);
    store(&scales.m[lane], least);
  }
};

// Codes -kTop..kTop as they are, modulo 256 (Q8_0), or from 0 on (kOffset; ternary types).
template <int kTop, int kOffset>
struct NearestSymmetric {
  static constexpr bool kWeighted = false;
  template <int N>
  static void encode(const Tile<N>& t, int lane, Codes<N>& codes, Scales& scales) {
    const Floats d = largest_magnitude(t, lane) / float(kTop);
    const Floats inverse = inverse_or_zero(d);
    const Floats factor = is_finite(inverse) ? inverse : Floats{};
    for (int i = 0; i < N; ++i)
      store_codes(&codes.of[i][lane], (round_away(load(&t.x[i][lane]) * factor) + kOffset) & 255);
    store(&scales.d[lane], d);
  }
};

}  // namespace
}  // namespace pocketlm
