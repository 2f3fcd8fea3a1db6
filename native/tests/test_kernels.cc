// Every table that can run here against scalar, bit for bit; scalar against plain double arithmetic.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>

#include "kernels/kernels.h"
#include "pack/pack.h"
#include "tests/check.h"
#include "tests/random_blocks.h"

using namespace pocketlm;

namespace {

bool same(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

PackedMatrix pack(const BlockShape& shape, std::span<const std::byte> data, int64_t rows, int64_t cols) {
  PackedMatrix matrix = make_packed(layout_for(shape.type), rows, cols);
  pack_panels(shape.type, data.data(), size_t(cols / shape.elements * shape.bytes), nullptr, 0, matrix.panels, matrix);
  return matrix;
}

// Activations as a kernel of this layout wants them.
struct Activations {
  Buffer data;
  size_t stride;
};

Activations activations(const Kernels& table, bool quantized, std::span<const float> x, int64_t tokens, int64_t cols) {
  const size_t stride = quantized ? quantized_row_bytes(cols) : size_t(cols) * sizeof(float);
  Activations result{Buffer(stride * size_t(tokens)), stride};
  for (int64_t t = 0; t < tokens; ++t) {
    if (quantized) table.quantize_row(x.data() + t * cols, cols, false, result.data.data() + size_t(t) * stride);
    else std::memcpy(result.data.data() + size_t(t) * stride, x.data() + t * cols, stride);
  }
  return result;
}

constexpr float kUntouched = 12345.0f;

struct Linear {
  const PackedMatrix& w;
  const Activations& x;
  int64_t tokens;
  const float* bias;
  bool accumulate;

  // Two columns more than rows, to see that nothing is written past them.
  std::vector<float> run(const Kernels& table, int64_t first_token, int64_t count) const {
    std::vector<float> out(size_t(count * (w.rows + 2)), kUntouched);
    if (accumulate)
      for (int64_t t = 0; t < count; ++t)
        for (int64_t r = 0; r < w.rows; ++r) out[size_t(t * (w.rows + 2) + r)] = float(r - 3 * (first_token + t));
    const int64_t half = w.panels / 2;
    for (const auto& [begin, end] : {std::pair{int64_t{0}, half}, std::pair{half, w.panels}})
      table.matmul[int(w.layout)](w, begin, end, x.data.data() + size_t(first_token) * x.stride, x.stride, count,
                                  out.data() + begin * kPanel, w.rows + 2, bias, accumulate);
    return out;
  }
};

// What the activations stand for, in double.
std::vector<double> dequantized(const Activations& x, bool quantized, int64_t token, int64_t cols) {
  std::vector<double> values;
  const std::byte* row = x.data.data() + size_t(token) * x.stride;
  for (int64_t k = 0; k < cols; ++k) {
    if (!quantized) values.push_back(reinterpret_cast<const float*>(row)[k]);
    else {
      const auto& block = reinterpret_cast<const QuantizedBlock*>(row)[k / kBlock];
      values.push_back(double(block.q[k % kBlock]) * double(block.d));
    }
  }
  return values;
}

void check_against_double(const Linear& linear, std::span<const float> out) {
  const PackedMatrix& w = linear.w;
  std::vector<float> row(static_cast<size_t>(w.cols));
  for (int64_t t = 0; t < linear.tokens; ++t) {
    const auto x = dequantized(linear.x, !is_float(w.layout), t, w.cols);
    for (int64_t r = 0; r < w.rows; ++r) {
      unpack_row(w, r, row.data());
      double sum = 0, magnitude = 0;
      for (size_t k = 0; k < row.size(); ++k) {
        sum += double(row[k]) * x[k];
        magnitude += std::abs(double(row[k]) * x[k]);
      }
      if (linear.bias) sum += double(linear.bias[r]);
      if (linear.accumulate) sum += double(r - 3 * t);
      CHECK(std::abs(double(out[size_t(t * (w.rows + 2) + r)]) - sum) <= 4e-6 * (magnitude + std::abs(sum) + 1));
    }
    CHECK(out[size_t(t * (w.rows + 2) + w.rows)] == kUntouched);
    CHECK(out[size_t(t * (w.rows + 2) + w.rows + 1)] == kUntouched);
  }
}

void test_matmul_shape(std::mt19937& random, const BlockShape& shape, int64_t rows, int64_t cols, int64_t tokens,
                       bool with_bias, bool accumulate) {
  const Kernels& scalar = *runnable_kernels().front();
  const auto data = random_blocks(random, shape, rows, cols);
  PackedMatrix w = pack(shape, data, rows, cols);
  if (w.layout == Layout::Ternary && with_bias) w.scale = 0.1f;  // as of I2_S
  const auto values = random_floats(random, tokens * cols);
  const Activations x = activations(scalar, !is_float(w.layout), values, tokens, cols);
  const auto bias = random_floats(random, rows);
  const Linear linear{w, x, tokens, with_bias ? bias.data() : nullptr, accumulate};
  const auto expected = linear.run(scalar, 0, tokens);
  check_against_double(linear, expected);
  for (const Kernels* table : runnable_kernels()) {
    CHECK(same(linear.run(*table, 0, tokens), expected));
    for (int64_t t = 0; t < tokens; ++t)
      CHECK(same(linear.run(*table, t, 1), std::span(expected).subspan(size_t(t * (rows + 2)), size_t(rows + 2))));
  }
}

void test_matmul() {
  std::mt19937 random(1);
  for (const BlockShape& shape : block_shapes()) {
    const int64_t unit = shape.elements == 1 ? 1 : shape.elements;
    for (int i = 0; i < 24; ++i) {
      const int64_t rows = i < 4 ? 16 * i + 1 : 1 + int64_t(random() % 40);
      const int64_t most = shape.elements == 1 ? 70 : shape.elements == 32 ? 40 : 5;
      const int64_t cols = unit * (1 + int64_t(random() % uint32_t(most)));
      const int64_t tokens = i < 20 ? i + 1 : 1 + int64_t(random() % 20);
      test_matmul_shape(random, shape, rows, cols, tokens, i % 3 == 1, i % 4 == 2);
    }
  }
  test_matmul_shape(random, block_shapes()[4], 20, 64, 140, true, false);  // more than one token group
  test_matmul_shape(random, block_shapes()[1], 20, 7, 140, true, false);
}

// Codes and activations at their ends: no 16-bit sum may overflow.
void test_extreme_codes() {
  for (const BlockShape& shape : block_shapes()) {
    if (shape.elements == 1) continue;
    for (const int fill : {0x00, 0xff, 0x80, 0x7f}) {
      const int64_t rows = 17, cols = 512;
      std::vector<std::byte> data(size_t(rows * cols / shape.elements * shape.bytes), std::byte(fill));
      for (size_t i = 0; i < data.size(); i += size_t(shape.bytes))
        for (const int64_t at : shape.halves) {
          const uint16_t h = f16_from_f32(0.5f);
          std::memcpy(data.data() + i + size_t(at), &h, 2);
        }
      const PackedMatrix w = pack(shape, data, rows, cols);
      for (const float sign : {1.0f, -1.0f}) {
        std::vector<float> values(size_t(5 * cols), sign);
        const Activations x = activations(*runnable_kernels().front(), true, values, 5, cols);
        const Linear linear{w, x, 5, nullptr, false};
        const auto expected = linear.run(*runnable_kernels().front(), 0, 5);
        check_against_double(linear, expected);
        for (const Kernels* table : runnable_kernels()) CHECK(same(linear.run(*table, 0, 5), expected));
      }
    }
  }
}

// --- row-wise ----------------------------------------------------------------------------------------------------

// Values of every size, and the special ones.
std::vector<float> odd_values(std::mt19937& random, int64_t n) {
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i) values.push_back(random_float(random) * std::exp2(float(random() % 12) - 6.0f));
  const float special[] = {0.0f, -0.0f, 1.0f, -1.0f, 88.5f, -88.5f, 100.0f, -100.0f, 1e30f, -1e30f, 1e-30f, 0.625f};
  for (size_t i = 0; i < values.size() && i < std::size(special); ++i) values[random() % values.size()] = special[i];
  return values;
}

bool close(float got, double wanted, double relative) {
  return std::abs(double(got) - wanted) <= relative * std::abs(wanted) + 1e-37;
}

double activation(Activation kind, double x) {
  if (kind == Activation::Silu) return x / (1 + std::exp(-x));
  if (kind == Activation::Relu2) return x > 0 ? x * x : 0;
  // 1 + tanh(u) without cancellation
  return x / (1 + std::exp(-2 * 0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

template <class Fn>
void check_same(const Fn& run) {
  const auto expected = run(*runnable_kernels().front());
  for (const Kernels* table : runnable_kernels()) CHECK(same(run(*table), expected));
}

void test_rowwise() {
  std::mt19937 random(2);
  for (int64_t n = 1; n <= 70; ++n) {
    const auto x = odd_values(random, n), y = random_floats(random, n), w = random_floats(random, n);
    for (const Activation kind : {Activation::Silu, Activation::GeluTanh, Activation::Relu2}) {
      auto run = [&](const Kernels& table) {
        std::vector<float> out(x.size());
        table.gated(kind, x.data(), y.data(), n, out.data());
        return out;
      };
      check_same(run);
      const auto out = run(*runnable_kernels().front());
      for (size_t i = 0; i < out.size(); ++i) {
        if (std::abs(x[i]) > 80) continue;  // at the edge of what exp can say
        // The error of exp's argument, a few units in the last place of it, is an error of the result.
        const double u = kind == Activation::GeluTanh ? std::abs(1.6 * x[i] * (1 + 0.044715 * double(x[i]) * x[i])) : std::abs(x[i]);
        if (u > 80) continue;
        CHECK(close(out[i], activation(kind, x[i]) * double(y[i]), 5e-7 + 3e-7 * u));
      }
    }
    check_same([&](const Kernels& table) {
      auto out = y;
      table.rms_norm(out.data(), w.data(), 1e-5f, n, out.data());
      return out;
    });
    check_same([&](const Kernels& table) {
      auto out = x;
      table.add(out.data(), y.data(), n);
      table.scale(out.data(), 0.3f, n);
      return out;
    });
    auto capped = [&](const Kernels& table) {
      auto out = x;
      table.softcap(out.data(), 30.0f, n);
      return out;
    };
    check_same(capped);
    const auto soft = capped(*runnable_kernels().front());
    for (size_t i = 0; i < soft.size(); ++i) CHECK(close(soft[i], 30.0 * std::tanh(double(x[i]) / 30.0), 5e-7));
    if (n % 2 == 0)
      check_same([&](const Kernels& table) {
        auto out = y;
        table.rope(out.data(), w.data(), x.data(), n);
        return out;
      });
    check_same([&](const Kernels& table) {
      auto out = y;
      table.fake_quantize_row(out.data(), n, out.data());
      return out;
    });
  }
}

void test_rowwise_values() {
  const Kernels& scalar = *runnable_kernels().front();
  std::mt19937 random(3);
  const auto x = random_floats(random, 50), w = random_floats(random, 50);
  double squares = 0;
  for (const float v : x) squares += double(v) * double(v);
  std::vector<float> out(50);
  scalar.rms_norm(x.data(), w.data(), 1e-3f, 50, out.data());
  for (size_t i = 0; i < 50; ++i) CHECK(close(out[i], double(x[i]) / std::sqrt(squares / 50 + 1e-3) * double(w[i]), 1e-6));
  auto head = x;
  scalar.rope(head.data(), w.data(), w.data() + 20, 40);
  for (size_t i = 0; i < 20; ++i) {
    CHECK(std::abs(head[i] - (x[i] * w[i] - x[i + 20] * w[i + 20])) < 1e-6f);
    CHECK(std::abs(head[i + 20] - (x[i + 20] * w[i] + x[i] * w[i + 20])) < 1e-6f);
  }
  CHECK(same(std::span(head).subspan(40), std::span(x).subspan(40)));
  scalar.fake_quantize_row(x.data(), 50, out.data());
  const float largest = std::abs(*std::ranges::max_element(x, {}, [](float v) { return std::abs(v); }));
  for (size_t i = 0; i < 50; ++i) CHECK(std::abs(out[i] - x[i]) <= largest / 127 * 0.501f);
}

void test_quantize_row() {
  std::mt19937 random(4);
  for (const bool per_row : {false, true}) {
    for (int64_t cols = 32; cols <= 320; cols += 32) {
      auto x = random_floats(random, cols);
      std::fill_n(x.begin(), 16, 0.0f);
      if (cols > 64) std::fill_n(x.begin() + 32, 32, 1e-38f);
      auto run = [&](const Kernels& table) {
        Buffer out(quantized_row_bytes(cols));
        table.quantize_row(x.data(), cols, per_row, out.data());
        return std::vector<float>(out.as<float>(), out.as<float>() + out.size() / 4);
      };
      check_same(run);
      const auto bytes = run(*runnable_kernels().front());
      const auto* blocks = reinterpret_cast<const QuantizedBlock*>(bytes.data());
      for (int64_t b = 0; b < cols / 32; ++b) {
        QuantizedBlock block;
        std::memcpy(&block, blocks + b, sizeof(block));
        int halves[2] = {0, 0};
        for (int k = 0; k < 32; ++k) {
          halves[k / 16] += block.q[k];
          CHECK(std::abs(block.d * float(block.q[k]) - x[size_t(b * 32 + k)]) <= block.d * 0.501f + 1e-37f);
        }
        for (int h = 0; h < 2; ++h) {
          CHECK(block.half_sum[h] == halves[h]);
          CHECK(block.half_scaled_sum[h] == block.d * float(halves[h]));
        }
        CHECK(block.sum == halves[0] + halves[1] && block.scaled_sum == block.d * float(block.sum));
      }
    }
  }
  std::vector<float> broken(32, 1.0f);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    broken[7] = bad;
    for (const Kernels* table : runnable_kernels()) {
      QuantizedBlock block;
      table->quantize_row(broken.data(), 32, false, reinterpret_cast<std::byte*>(&block));
      CHECK(std::isnan(block.d));  // seen in the logits, not hidden
    }
  }
}

void test_dispatch() {
  CHECK(std::string(runnable_kernels().front()->name) == "scalar");
  CHECK_THROWS(std::invalid_argument, select_kernels("sse9"));
  try {
    select_kernels("sse9");
  } catch (const std::invalid_argument& error) {
    for (const Kernels* table : runnable_kernels()) CHECK(std::string(error.what()).find(table->name) != std::string::npos);
  }
  select_kernels("scalar");
  CHECK(&kernels() == runnable_kernels().front());
  select_kernels(runnable_kernels().back()->name);
}

}  // namespace

int main() {
  for (const Kernels* table : runnable_kernels()) std::printf("%s ", table->name);
  test_dispatch();
  test_matmul();
  test_extreme_codes();
  test_rowwise();
  test_rowwise_values();
  test_quantize_row();
  return report();
}
