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
  Buffer(Buffer&&) = default;
  Buffer& operator=(Buffer&&) = default;

  // For what is filled at once and read often: side by side with others on large pages, where the system has them. They
  // cost a fraction of the page faults and of the address translations, and memory is used to its last 2 MiB.
  static Buffer on_large_pages(size_t bytes);

  // Contents are not initialised: pages are touched by whoever fills them.
  explicit Buffer(size_t bytes) : size_(bytes) {
    if (bytes == 0) return;
    auto* data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, align_up(bytes)));
    if (data == nullptr) throw CapacityError("could not allocate " + std::to_string(bytes) + " bytes");
    data_ = {data, [](std::byte* p) { std::free(p); }};
  }

  // Has the system put memory behind all of it now, where it can, which else happens at the first use of every page.
  // What is in it stays, and others may use it meanwhile.
  void populate();

  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }

  template <class T>
  T* as() { return reinterpret_cast<T*>(data_.get()); }
  template <class T>
  const T* as() const { return reinterpret_cast<const T*>(data_.get()); }

 private:
  std::shared_ptr<std::byte> data_;  // shared with the other buffers on the same pages
  size_t size_ = 0;
};

}  // namespace pocketlm
