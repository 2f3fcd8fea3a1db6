// Kernels over one row of floats: norms, activations, rope, quantization. Included like matmul-inl.h.
#pragma once

#include "kernels/kernels.h"

namespace pocketlm {
namespace {

// The last count (< 16) values, zero behind them; and back.
POCKETLM_INLINE isa::F load_tail(const float* p, int64_t count) {
  alignas(64) float values[16] = {};
  __builtin_memcpy(values, p, size_t(count) * sizeof(float));
  return isa::load(values);
}

POCKETLM_INLINE void store_tail(float* p, int64_t count, isa::F x) {
  alignas(64) float values[16];
  isa::store(values, x);
  __builtin_memcpy(p, values, size_t(count) * sizeof(float));
}

// out[i] = fn(a[i], b[i]).
template <class Fn>
POCKETLM_INLINE void map(const float* a, const float* b, int64_t n, float* out, const Fn& fn) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) isa::store(out + i, fn(isa::load(a + i), isa::load(b + i)));
  if (i < n) store_tail(out + i, n - i, fn(load_tail(a + i, n - i), load_tail(b + i, n - i)));
}

// e^x: at most 1 ulp off; exactly 1 at 0, exactly 0 below -86.6 (results under 2^-125), inf above 88.7, NaN for NaN.
// x = n ln 2 + r, |r| <= ln 2 / 2; e^r = 1 + r + r^2 P(r), P fitted to a relative error of 3e-9.
POCKETLM_INLINE isa::F exp(isa::F x) {
  using namespace isa;
  const F clamped = min(max(x, set1(-86.64f)), set1(88.73f));
  const F n = round(mul(clamped, set1(0x1.715476p+0f)));
  F r = fma(n, set1(-0x1.62e4p-1f), x);
  r = fma(n, set1(-0x1.7f7d1cp-20f), r);
  F p = set1(0x1.6a2252p-10f);
  p = fma(p, r, set1(0x1.123b04p-7f));
  p = fma(p, r, set1(0x1.5558f8p-5f));
  p = fma(p, r, set1(0x1.55549p-3f));
  p = fma(p, r, set1(0x1.fffffcp-2f));
  p = fma(mul(r, r), p, add(r, set1(1)));
  // 2^128 is no float: half of it first.
  const F y = mul(mul(p, pow2(sub(n, set1(1)))), set1(2));
  return select(less(x, set1(-86.64f)), set1(0), y);
}

// tanh x: x + x^3 P(x^2) near 0, (1 - e) / (1 + e) with e = exp(-2 |x|) elsewhere.
POCKETLM_INLINE isa::F tanh(isa::F x) {
  using namespace isa;
  const F a = abs(x), e = exp(mul(a, set1(-2)));
  const F far = copysign(div(sub(set1(1), e), add(set1(1), e)), x);
  const F z = mul(x, x);
  F p = set1(-0x1.72fc24p-8f);
  p = fma(p, z, set1(0x1.518b0cp-6f));
  p = fma(p, z, set1(-0x1.b8265cp-5f));
  p = fma(p, z, set1(0x1.11068ep-3f));
  p = fma(p, z, set1(-0x1.555530p-2f));
  const F near = fma(mul(x, z), p, x);
  return select(less(a, set1(0.625f)), near, far);
}

POCKETLM_INLINE isa::F sigmoid_times(isa::F x, isa::F argument) {  // x / (1 + exp(-argument))
  return isa::div(x, isa::add(isa::set1(1), exp(isa::sub(isa::set1(0), argument))));
}

// 0.5 x (1 + tanh u) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3): nothing cancels.
POCKETLM_INLINE isa::F gelu_tanh(isa::F x) {
  using namespace isa;
  const F x2 = mul(x, x);
  const F u = mul(mul(x, set1(0x1.988454p+0f)), fma(x2, set1(0.044715f), set1(1)));  // 2 sqrt(2 / pi) = 1.5957691
  return sigmoid_times(x, u);
}

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  isa::F squares = isa::set1(0);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const isa::F v = isa::load(x + i);
    squares = isa::fma(v, v, squares);
  }
  if (i < n) {
    const isa::F v = load_tail(x + i, n - i);
    squares = isa::fma(v, v, squares);
  }
  const float mean = isa::reduce_add(squares) / float(n);
  const isa::F inverse = isa::set1(1.0f / __builtin_sqrtf(mean + eps));
  map(x, weight, n, out, [&](isa::F v, isa::F w) POCKETLM_INLINED {
    return isa::mul(isa::mul(v, inverse), w);
  });
}

void rope(float* head, const float* cos, const float* sin, int64_t rotary_dim) {
  const int64_t half = rotary_dim / 2;
  auto rotate = [](isa::F& a, isa::F& b, isa::F c, isa::F s) POCKETLM_INLINED {
    const isa::F x = a, y = b;
    a = isa::sub(isa::mul(x, c), isa::mul(y, s));
    b = isa::add(isa::mul(x, s), isa::mul(y, c));
  };
  int64_t i = 0;
  for (; i + 16 <= half; i += 16) {
    isa::F a = isa::load(head + i), b = isa::load(head + half + i);
    rotate(a, b, isa::load(cos + i), isa::load(sin + i));
    isa::store(head + i, a);
    isa::store(head + half + i, b);
  }
  if (i < half) {
    const int64_t rest = half - i;
    isa::F a = load_tail(head + i, rest), b = load_tail(head + half + i, rest);
    rotate(a, b, load_tail(cos + i, rest), load_tail(sin + i, rest));
    store_tail(head + i, rest, a);
    store_tail(head + half + i, rest, b);
  }
}

void gated(Activation kind, const float* gate, const float* up, int64_t n, float* out) {
  switch (kind) {
    case Activation::Silu:
      return map(gate, up, n, out, [](isa::F g, isa::F u) POCKETLM_INLINED {
        return isa::mul(sigmoid_times(g, g), u);
      });
    case Activation::GeluTanh:
      return map(gate, up, n, out, [](isa::F g, isa::F u) POCKETLM_INLINED {
        return isa::mul(gelu_tanh(g), u);
      });
    case Activation::Relu2:
      return map(gate, up, n, out, [](isa::F g, isa::F u) POCKETLM_INLINED {
        const isa::F r = isa::max(g, isa::set1(0));
        return isa::mul(isa::mul(r, r), u);
      });
  }
}

void add(float* dst, const float* src, int64_t n) {
  map(dst, src, n, dst, [](isa::F a, isa::F b) POCKETLM_INLINED { return isa::add(a, b); });
}

void scale(float* x, float factor, int64_t n) {
  const isa::F f = isa::set1(factor);
  map(x, x, n, x, [&](isa::F a, isa::F) POCKETLM_INLINED { return isa::mul(a, f); });
}

void softcap(float* x, float cap, int64_t n) {
  const isa::F c = isa::set1(cap);
  map(x, x, n, x, [&](isa::F a, isa::F) POCKETLM_INLINED { return isa::mul(c, tanh(isa::div(a, c))); });
}

// --- activations to 8 bits ---------------------------------------------------------------------------------------

float largest_magnitude(const float* x, int64_t n) {
  isa::F largest = isa::set1(0);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) largest = isa::max(isa::abs(isa::load(x + i)), largest);
  if (i < n) largest = isa::max(isa::abs(load_tail(x + i, n - i)), largest);
  return isa::reduce_max(largest);
}

// x rounded to codes with a scale of 1 / inverse.
POCKETLM_INLINE isa::F codes_of(isa::F x, isa::F inverse) {
  const isa::F q = isa::round(isa::mul(x, inverse));
  return isa::min(isa::max(q, isa::set1(-127)), isa::set1(127));
}

void quantize_block(const float* x, float largest, QuantizedBlock* out) {
  // Blocks so small that 127 / largest overflows count as zero.
  const bool zero = largest < 0x1p-100f;
  const isa::F inverse = isa::set1(zero ? 0 : 127.0f / largest);
  const isa::F low = codes_of(isa::load(x), inverse), high = codes_of(isa::load(x + 16), inverse);
  isa::store_i8(out->q, low);
  isa::store_i8(out->q + 16, high);
  // Codes cannot say NaN or infinity, so the scale does: 0 * x is 0 for everything else.
  const isa::F finite = isa::mul(isa::add(isa::mul(isa::load(x), isa::set1(0)), isa::load(x + 16)), isa::set1(0));
  const float d = (zero ? 0 : largest / 127.0f) + isa::reduce_add(finite);
  const float low_sum = isa::reduce_add(low), high_sum = isa::reduce_add(high);
  out->d = d;
  out->sum = int32_t(low_sum + high_sum);
  out->half_sum[0] = int32_t(low_sum);
  out->half_sum[1] = int32_t(high_sum);
  out->scaled_sum = d * (low_sum + high_sum);
  out->half_scaled_sum[0] = d * low_sum;
  out->half_scaled_sum[1] = d * high_sum;
  out->unused = 0;
}

void quantize_row(const float* x, int64_t cols, bool per_row, std::byte* out) {
  auto* blocks = reinterpret_cast<QuantizedBlock*>(out);
  float row_largest = 0;
  if (per_row) {
    row_largest = largest_magnitude(x, cols);
    if (row_largest < 1e-5f) row_largest = 1e-5f;
  }
  for (int64_t b = 0; b < cols / kBlock; ++b)
    quantize_block(x + b * kBlock, per_row ? row_largest : largest_magnitude(x + b * kBlock, kBlock), blocks + b);
}

void fake_quantize_row(const float* x, int64_t cols, float* out) {
  float largest = largest_magnitude(x, cols);
  if (largest < 1e-5f) largest = 1e-5f;
  const isa::F s = isa::set1(127.0f / largest);
  map(x, x, cols, out, [&](isa::F v, isa::F) POCKETLM_INLINED {
    const isa::F q = isa::round(isa::mul(v, s));
    return isa::div(isa::min(isa::max(q, isa::set1(-128)), isa::set1(127)), s);
  });
}

}  // namespace
}  // namespace pocketlm
