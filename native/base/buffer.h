// Owned, 64-byte aligned memory that never throws away its size.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>

#include "base/error.h"

namespace pocketlm {

inline constexpr size_t kAlignment = 64;

inline constexpr size_t align_up(size_t bytes, size_t to = kAlignment) {
  return (bytes + to - 1) / to * to;
}

// a * b bytes; refuses what no machine has (and so what would wrap around when such sizes are added up).
inline size_t checked_bytes(size_t a, size_t b) {
  constexpr size_t kMost = size_t{1} << 47;
  size_t bytes;
  if (__builtin_mul_overflow(a, b, &bytes) || bytes > kMost) throw CapacityError("a buffer of more than 128 TiB was asked for");
  return bytes;
}

class Buffer {
 public:
  Buffer() = default;

  // Contents are not initialised: pages are touched by whoever fills them.
  explicit Buffer(size_t bytes) : size_(bytes) {
    if (bytes == 0) return;
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, align_up(bytes))));
    if (!data_) throw CapacityError("could not allocate " + std::to_string(bytes) + " bytes");
  }

  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }

  template <class T>
  T* as() { return reinterpret_cast<T*>(data_.get()); }
  template <class T>
  const T* as() const { return reinterpret_cast<const T*>(data_.get()); }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

}  // namespace pocketlm
