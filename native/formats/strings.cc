#include "formats/strings.h"

#include <cstring>
#include <string>

#include "base/error.h"

namespace pocketlm {

Strings read_strings(std::span<const std::byte> buffer, uint64_t offset, uint64_t count) {
  const uint64_t size = buffer.size();
  const auto fail = [&](uint64_t i, const std::string& what) {
    throw FormatError("string " + std::to_string(i) + " of " + std::to_string(count) + " at byte " + std::to_string(offset) + ": " + what);
  };
  if (offset > size || count > (size - offset) / 8) fail(0, "the array does not fit into " + std::to_string(size) + " bytes");
  Strings strings;
  strings.values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    if (size - offset < 8) fail(i, "its length is cut off");
    uint64_t length;
    std::memcpy(&length, buffer.data() + offset, 8);
    if (length > size - offset - 8)
      fail(i, "its length is " + std::to_string(length) + ", but " + std::to_string(size - offset - 8) + " bytes are left");
    strings.values.emplace_back(reinterpret_cast<const char*>(buffer.data() + offset + 8), length);
    offset += 8 + length;
  }
  strings.end = offset;
  return strings;
}

}  // namespace pocketlm
