#include "quantize/encode.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "formats/decode.h"
#include "kernels/kernels.h"
#include "quantize/encode_table.h"

namespace pocketlm {

extern const Encoders encoders_baseline;
#if defined(POCKETLM_HAS_AVX2)
extern const Encoders encoders_avx2, encoders_avx512;
#endif

const Encoders& encoders() {
#if defined(POCKETLM_HAS_AVX2)
  const std::string_view name = kernels().name;
  if (name == encoders_avx512.name) return encoders_avx512;
  if (name == encoders_avx2.name) return encoders_avx2;
#endif
  return encoders_baseline;
}

EncodeMethod encode_method(std::string_view name) {
  if (name == "nearest") return EncodeMethod::Nearest;
  if (name == "search") return EncodeMethod::Search;
  throw std::invalid_argument("method '" + std::string(name) + "' is none of nearest, search");
}

namespace {

constexpr int64_t kChunk = 16384;  // weights that a thread takes at a time, rows permitting: they stay in its cache

constexpr double kLeastImportance = 1e-6;  // of the mean

const BlockEncoder& encoder_of(int type) {
  for (const BlockEncoder& encoder : encoders().of)
    if (encoder.type == type) return encoder;
  throw FormatError("GGUF block type " + std::to_string(type) + " is not one that PocketLM writes");
}

// The lowest of the indices that threads find.
class Lowest {
 public:
  void found(int64_t index) {
    int64_t known = index_.load();
    while (index < known && !index_.compare_exchange_weak(known, index)) {}
  }
  bool any() const { return index_ != INT64_MAX; }
  int64_t get() const { return index_; }

 private:
  std::atomic<int64_t> index_{INT64_MAX};
};

// One job while it runs. A thread decodes a few whole rows into floats of its own, and encodes them.
class Encoding {
 public:
  Encoding(const EncodeJob& job, std::byte* out)
      : job_(job),
        out_(out),
        encode_(job.method == EncodeMethod::Nearest ? encoder_of(job.type).nearest : encoder_of(job.type).search),
        rows_at_once_(std::clamp<int64_t>(kChunk / std::max<int64_t>(job.cols, 1), 1, std::max<int64_t>(job.rows, 1))),
        source_row_(size_t(job.cols / block_elements(job.source_type)) * block_bytes(job.source_type)),
        row_blocks_(job.cols / block_elements(job.type)),
        row_bytes_(size_t(row_blocks_) * block_bytes(job.type)),
        importance_(scaled(job.importance)) {}

  void run() {
    const auto weights = size_t(rows_at_once_ * job_.cols);
    ThreadPool pool(int(std::clamp<int64_t>(job_.rows / rows_at_once_, 1, job_.threads)));
    Buffer floats(size_t(pool.size()) * align_up(checked_bytes(weights, 2 * sizeof(float))));
    pool.run([&](Worker& worker) {
      float* x = floats.as<float>() + size_t(worker.index()) * align_up(weights * 2 * sizeof(float)) / sizeof(float);
      worker.each(job_.rows, rows_at_once_, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row += rows_at_once_)
          encode_rows(row, std::min(end, row + rows_at_once_), x, x + weights);
      });
    });
    report();
  }

 private:
  void encode_rows(int64_t begin, int64_t end, float* x, float* w) {
    for (int64_t row = begin; row < end; ++row)
      if (!load(row, x + (row - begin) * job_.cols)) not_finite_.found(row);
    if (job_.method == EncodeMethod::Search)
      for (int64_t i = 0; i < (end - begin) * job_.cols; i += job_.cols)
        encoders().weigh(x + i, importance_.empty() ? nullptr : importance_.data(), job_.cols, w + i);
    if (not_finite_.any()) return;  // encoders assume finite weights, and the job has failed
    const int64_t first = begin * row_blocks_;
    const int64_t beyond = encode_(x, w, (end - begin) * row_blocks_, out_ + size_t(begin) * row_bytes_);
    if (beyond >= 0) beyond_half_.found(first + beyond);
  }

  // False where a weight is NaN or infinite.
  bool load(int64_t row, float* x) const {
    const std::byte* data = job_.data.data() + size_t(row) * source_row_;
    switch (job_.source_type) {
      case kF32: return encoders().load_f32(data, job_.cols, x);
      case kF16: return encoders().load_f16(data, job_.cols, x);
      case kBF16: return encoders().load_bf16(data, job_.cols, x);
      default:
        dequantize(job_.source_type, data, job_.cols, x);
        return encoders().load_f32(reinterpret_cast<const std::byte*>(x), job_.cols, x);
    }
  }

  void report() const {
    if (not_finite_.any()) {
      const int64_t row = not_finite_.get();
      Buffer values(size_t(job_.cols) * sizeof(float));
      float* x = values.as<float>();
      dequantize(job_.source_type, job_.data.data() + size_t(row) * source_row_, job_.cols, x);
      const int64_t col = std::find_if(x, x + job_.cols, [](float v) { return !std::isfinite(v); }) - x;
      throw std::invalid_argument("weight at " + place(row, col) + " is " + (std::isnan(x[col]) ? "NaN" : "infinite"));
    }
    if (beyond_half_.any()) {
      const int64_t block = beyond_half_.get(), elements = block_elements(job_.type);
      const int64_t row = block / row_blocks_, col = block % row_blocks_ * elements;
      if (elements == 1) throw std::invalid_argument("weight at " + place(row, col) + " is too large for 16 bits");
      throw std::invalid_argument("weights from " + place(row, col) + " on (" + std::to_string(elements) +
                                  ") are too large for the type: a 16-bit float cannot hold their scale");
    }
  }

  // Only ratios matter; with a mean of 1, products with squares of weights stay in range. What was never active still
  // counts a little, so that every group has a best scale.
  static std::vector<float> scaled(std::span<const float> importance) {
    double sum = 0;
    for (const float value : importance) sum += value;
    if (sum == 0) return {};
    const double factor = double(importance.size()) / sum;
    std::vector<float> out;
    for (const float value : importance) out.push_back(float(std::max(value * factor, kLeastImportance)));
    return out;
  }

  static std::string place(int64_t row, int64_t col) {
    return "row " + std::to_string(row) + ", column " + std::to_string(col);
  }

  const EncodeJob& job_;
  std::byte* const out_;
  const EncodeBlocks encode_;
  const int64_t rows_at_once_;
  const size_t source_row_;
  const int64_t row_blocks_;
  const size_t row_bytes_;
  const std::vector<float> importance_;  // mean 1, or none
  Lowest not_finite_;   // row
  Lowest beyond_half_;  // block
};

}  // namespace

size_t encoded_bytes(const EncodeJob& job) {
  require(job.rows >= 0 && job.rows < int64_t{1} << 31 && job.cols >= 0, "rows and cols must not be negative, rows below 2^31");
  require(job.threads >= 1, "threads must be at least 1");
  encoder_of(job.type);
  for (const int type : {job.source_type, job.type})
    if (job.cols % block_elements(type) != 0)
      throw std::invalid_argument("a row of " + std::to_string(job.cols) + " weights is not a whole number of blocks of " +
                                  std::to_string(block_elements(type)));
  const auto bytes = [&](int type) {
    return checked_bytes(size_t(job.rows), checked_bytes(size_t(job.cols / block_elements(type)), block_bytes(type)));
  };
  if (job.data.size() != bytes(job.source_type))
    throw std::invalid_argument("the weights take " + std::to_string(bytes(job.source_type)) + " bytes, found " +
                                std::to_string(job.data.size()));
  require(job.importance.empty() || int64_t(job.importance.size()) == job.cols, "importance must have one value for each column");
  for (const float value : job.importance)
    require(std::isfinite(value) && value >= 0, "importance must be finite and not negative");
  return bytes(job.type);
}

void encode(const EncodeJob& job, std::byte* out) {
  if (encoded_bytes(job) != 0) Encoding(job, out).run();
}

}  // namespace pocketlm
