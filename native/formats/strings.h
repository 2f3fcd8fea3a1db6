// GGUF string arrays: u64 length, then that many bytes, `count` times over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace pocketlm {

struct Strings {
  std::vector<std::string_view> values;  // into the buffer
  size_t end;                            // offset after the last one
};

// Throws FormatError that names the string and the offset where one does not fit the buffer; allocates no more than the
// buffer could hold.
Strings read_strings(std::span<const std::byte> buffer, uint64_t offset, uint64_t count);

}  // namespace pocketlm
