// A packed matrix as the program's ops share it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "pack/layout.h"

namespace pocketlm {

using Weight = std::shared_ptr<const PackedMatrix>;

// Packs [rows, cols] of GGUF blocks, `threads` panels ranges at a time. Row r of the result is row row_map[r] of the
// data (an empty map: the identity). `read` is called after each 16 MiB of the data or so, on the calling thread, so
// that whoever mapped the file can let its pages go. Throws std::invalid_argument when sizes disagree, FormatError for
// a type that the kernels do not read, and what `read` throws.
Weight pack_weight(int ggml_type, int64_t rows, int64_t cols, std::span<const std::byte> data,
                   std::span<const int32_t> row_map, int threads, const std::function<void()>& read = {});

// The shape of such a weight without its data: a program of them can say what it would take, and nothing else.
Weight plan_weight(int ggml_type, int64_t rows, int64_t cols);

}  // namespace pocketlm
