// The encoders: blocks worked out by hand, the same bytes from every instruction set and any number of threads, a search
// that never loses against rounding, and weights that cannot be written. tests/oracle compares the bytes with ggml's.
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/float16.h"
#include "formats/blocks.h"
#include "formats/decode.h"
#include "kernels/kernels.h"
#include "quantize/encode.h"
#include "tests/check.h"
#include "tests/random_blocks.h"

using namespace pocketlm;

namespace {

constexpr int kTypes[] = {kF32,  kF16,  kBF16, kQ4_0, kQ4_1, kQ5_0, kQ5_1,  kQ8_0,
                          kQ2_K, kQ3_K, kQ4_K, kQ5_K, kQ6_K, kTQ1_0, kTQ2_0};
constexpr EncodeMethod kMethods[] = {EncodeMethod::Nearest, EncodeMethod::Search};

struct Matrix {
  int64_t rows, cols;
  std::vector<float> weights;
};

EncodeJob job_of(const Matrix& m, int type, EncodeMethod method, std::span<const float> importance = {}, int threads = 1) {
  return {kF32, std::as_bytes(std::span(m.weights)), m.rows, m.cols, type, method, importance, threads};
}

std::vector<std::byte> encoded(const EncodeJob& job) {
  std::vector<std::byte> out(encoded_bytes(job));
  encode(job, out.data());
  return out;
}

std::vector<float> decoded(const EncodeJob& job) {
  const std::vector<std::byte> blocks = encoded(job);
  std::vector<float> out(size_t(job.rows * job.cols));
  dequantize(job.type, blocks.data(), job.rows * job.cols, out.data());
  return out;
}

// Every kind of row at once; 19 blocks of 256 leave a tile half full.
Matrix odd_matrix(std::mt19937& random) {
  Matrix m{19, 256, random_floats(random, 19 * 256, 0.02f)};
  const float scales[] = {0, 1e-41f, 1e-38f, 1e-30f, 1e-20f, 1e-14f, 1e-9f, 1e-7f, 1e-5f, 1e3f};
  for (size_t row = 0; row < std::size(scales); ++row)
    for (int64_t col = 0; col < m.cols; ++col) m.weights[row * 256 + size_t(col)] *= scales[row];
  for (size_t col = 0; col < 256; ++col) {
    m.weights[12 * 256 + col] = 0.75f;                                // constant
    m.weights[13 * 256 + col] = std::abs(m.weights[13 * 256 + col]);  // above zero
    m.weights[14 * 256 + col] = -std::abs(m.weights[14 * 256 + col]);
    if (col % 29) m.weights[15 * 256 + col] = 0;                      // sparse
    m.weights[16 * 256 + col] = float(int(col % 31) - 15) * 0.5f;     // ties
  }
  m.weights[17 * 256 + 40] = 60.0f;  // an outlier
  return m;
}

void blocks_are_written_as_worked_out() {
  Matrix m{1, 32, std::vector<float>(32)};
  m.weights[3] = -8;
  m.weights[4] = 7;
  m.weights[20] = 2.5f;
  BlockQ4_0 q4;
  std::memcpy(&q4, encoded(job_of(m, kQ4_0, EncodeMethod::Nearest)).data(), sizeof(q4));
  CHECK(f32_from_f16(q4.d) == 1.0f);
  CHECK(q4.qs[0] == 0x88 && q4.qs[3] == 0x80 && q4.qs[4] == 0xbf);  // 2.5 rounds up to 3

  BlockQ5_1 q5;
  std::memcpy(&q5, encoded(job_of(m, kQ5_1, EncodeMethod::Nearest)).data(), sizeof(q5));
  CHECK(f32_from_f16(q5.m) == -8.0f && q5.qs[4] == 0x6f);  // (2.5 + 8) * 31 / 15 = 21.7, 22 is 0x16

  m.weights[3] = -127;
  BlockQ8_0 q8;
  std::memcpy(&q8, encoded(job_of(m, kQ8_0, EncodeMethod::Nearest)).data(), sizeof(q8));
  CHECK(f32_from_f16(q8.d) == 1.0f && q8.qs[3] == -127 && q8.qs[20] == 3);  // away from zero
}

void bytes_depend_on_neither_instruction_set_nor_threads() {
  std::mt19937 random(1);
  const Matrix m = odd_matrix(random);
  std::vector<float> importance(256);
  for (float& value : importance) value = std::exp(random_float(random, 2.0f));
  importance[7] = 0;
  for (const int type : kTypes)
    for (const EncodeMethod method : kMethods) {
      select_kernels("scalar");
      const auto expected = encoded(job_of(m, type, method, importance));
      for (const Kernels* table : runnable_kernels()) {
        select_kernels(table->name);
        CHECK(encoded(job_of(m, type, method, importance, 3)) == expected);
      }
      // a row alone, where other lanes are empty
      const Matrix last{1, 256, {m.weights.end() - 256, m.weights.end()}};
      const auto alone = encoded(job_of(last, type, method, importance));
      CHECK(std::equal(alone.begin(), alone.end(), expected.end() - int64_t(alone.size())));
    }
}

double weighted_error(const Matrix& m, const std::vector<float>& found, std::span<const float> importance, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; ++i) {
    const double rest = double(found[i]) - double(m.weights[i]);
    sum += (importance.empty() ? 1.0 : double(importance[i % size_t(m.cols)])) * rest * rest;
  }
  return sum;
}

void search_never_loses() {
  std::mt19937 random(2);
  const Matrix m = odd_matrix(random);
  std::vector<float> importance(256);
  for (float& value : importance) value = std::exp(random_float(random, 1.0f));
  for (const int type : kTypes)
    for (const std::span<const float> weights : {std::span<const float>(), std::span<const float>(importance)}) {
      const auto nearest = decoded(job_of(m, type, EncodeMethod::Nearest));
      const auto searched = decoded(job_of(m, type, EncodeMethod::Search, weights));
      for (size_t at = 0; at < m.weights.size(); at += 256) {
        const double before = weighted_error(m, nearest, weights, at, at + 256);
        const double after = weighted_error(m, searched, weights, at, at + 256);
        CHECK(after <= before * (1 + 1e-4) + 1e-30);
      }
      if (type != kF32 && type != kF16 && type != kBF16)
        CHECK(weighted_error(m, searched, weights, 10 * 256, 12 * 256) < 0.99 * weighted_error(m, nearest, weights, 10 * 256, 12 * 256));
    }
}

void weights_that_are_on_the_grid_stay() {
  std::mt19937 random(3);
  for (const int type : {kQ4_0, kQ5_0, kQ8_0, kTQ1_0, kTQ2_0}) {
    Matrix m{2, 512, {}};
    const int top = type == kQ4_0 ? 8 : type == kQ5_0 ? 16 : type == kQ8_0 ? 127 : 1;
    for (int i = 0; i < 1024; ++i) m.weights.push_back(0.25f * float(i % 32 == 0 ? -top : int(random() % unsigned(2 * top)) - top));
    for (const EncodeMethod method : kMethods) CHECK(decoded(job_of(m, type, method)) == m.weights);
  }
}

template <class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "";
}

void weights_that_cannot_be_written_are_named() {
  for (const int type : kTypes)
    for (const EncodeMethod method : kMethods) {
      Matrix m{40, 512, std::vector<float>(40 * 512, 0.5f)};
      m.weights[33 * 512 + 300] = NAN;
      m.weights[35 * 512] = INFINITY;
      CHECK(message_of([&] { encoded(job_of(m, type, method, {}, 2)); }) == "weight at row 33, column 300 is NaN");
      m.weights[33 * 512 + 300] = -INFINITY;
      CHECK(message_of([&] { encoded(job_of(m, type, method, {}, 2)); }) == "weight at row 33, column 300 is infinite");

      m.weights[33 * 512 + 300] = 3e38f;
      m.weights[33 * 512 + 301] = -3e38f;
      m.weights[35 * 512] = 0;
      const std::string message = message_of([&] { encoded(job_of(m, type, method, {}, 2)); });
      if (type == kF32 || type == kBF16) CHECK(message.empty());
      else if (type == kF16) CHECK(message == "weight at row 33, column 300 is too large for 16 bits");
      else CHECK(message.starts_with("weights from row 33, column ") && message.find("too large") != std::string::npos);
    }
}

void jobs_that_make_no_sense_are_refused() {
  const Matrix m{2, 256, std::vector<float>(512)};
  const auto with = [&](auto change) {
    EncodeJob job = job_of(m, kQ4_0, EncodeMethod::Search);
    change(job);
    return job;
  };
  const float one = 1, negative[256] = {-1};
  CHECK_THROWS(FormatError, encoded_bytes(with([](EncodeJob& j) { j.type = 99; })));
  CHECK_THROWS(FormatError, encoded_bytes(with([](EncodeJob& j) { j.source_type = 99; })));
  CHECK_THROWS(std::invalid_argument, encoded_bytes(with([](EncodeJob& j) { j.rows = -1; })));
  CHECK_THROWS(std::invalid_argument, encoded_bytes(with([](EncodeJob& j) { j.rows = 3; })));
  CHECK_THROWS(std::invalid_argument, encoded_bytes(with([](EncodeJob& j) { j.cols = 250; })));
  CHECK_THROWS(std::invalid_argument, encoded_bytes(with([](EncodeJob& j) { j.threads = 0; })));
  CHECK_THROWS(std::invalid_argument, encoded_bytes(with([&](EncodeJob& j) { j.importance = {&one, 1}; })));
  CHECK_THROWS(std::invalid_argument, encoded_bytes(with([&](EncodeJob& j) { j.importance = negative; })));
  CHECK_THROWS(std::invalid_argument, encode_method("best"));
  CHECK(encoded(with([](EncodeJob& j) { j.rows = 0, j.data = {}; })).empty());
}

}  // namespace

int main() {
  blocks_are_written_as_worked_out();
  bytes_depend_on_neither_instruction_set_nor_threads();
  search_never_loses();
  weights_that_are_on_the_grid_stay();
  weights_that_cannot_be_written_are_named();
  jobs_that_make_no_sense_are_refused();
  return report();
}
