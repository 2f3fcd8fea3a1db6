// Weights into GGUF blocks: how `pocketlm quantize` and `convert` write a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace pocketlm {

// Nearest: byte for byte what ggml's reference quantizers write without an importance matrix.
// Search: the codes and scales of least weighted squared error that a wider search finds; never worse than Nearest.
enum class EncodeMethod : uint8_t { Nearest, Search };

EncodeMethod encode_method(std::string_view name);  // throws std::invalid_argument

struct EncodeJob {
  int source_type;                // of `data`
  std::span<const std::byte> data;
  int64_t rows, cols;
  int type;                       // to be written
  EncodeMethod method;
  std::span<const float> importance;  // [cols] weights of the squared error, or none; Nearest has no use for them
  int threads;
};

// Bytes that `encode` writes. Throws std::invalid_argument where the job cannot be done: a type that is not written
// (FormatError), rows that are no whole number of blocks, data of another size, importance that is negative or not finite.
size_t encoded_bytes(const EncodeJob& job);

// The job's rows as blocks of job.type, in order. The bytes depend neither on the threads nor on the instruction set.
// Throws std::invalid_argument naming row and column for a weight that is NaN or infinite, or too large for the type.
void encode(const EncodeJob& job, std::byte* out);

}  // namespace pocketlm
