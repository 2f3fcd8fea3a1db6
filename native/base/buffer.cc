#include "base/buffer.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>

namespace pocketlm {
namespace {

constexpr size_t kLargePage = size_t{2} << 20;
[[maybe_unused]] constexpr size_t kSmallPage = 4096;
constexpr size_t kChunk = 64 * kLargePage;  // that buffers share; what lies behind the last one is never touched

std::shared_ptr<std::byte> allocate_large_pages(size_t bytes) {
#ifdef MADV_HUGEPAGE
  // Not rounded up to a large page, which aligned_alloc would want: the rest of the last one would be taken too.
  void* pages = nullptr;
  auto* data = posix_memalign(&pages, kLargePage, align_up(bytes, kSmallPage)) == 0 ? static_cast<std::byte*>(pages) : nullptr;
  if (data != nullptr) madvise(data, align_up(bytes, kSmallPage), MADV_HUGEPAGE);  // small pages will do where it fails
#else
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, align_up(bytes)));
#endif
  if (data == nullptr) throw CapacityError("could not allocate " + std::to_string(bytes) + " bytes");
  return {data, [](std::byte* p) { std::free(p); }};
}

void give_back([[maybe_unused]] std::byte* data, [[maybe_unused]] size_t bytes) {
#ifdef MADV_HUGEPAGE
  const size_t before = align_up(size_t(uintptr_t(data)), kSmallPage) - size_t(uintptr_t(data));
  if (before < bytes) madvise(data + before, (bytes - before) / kSmallPage * kSmallPage, MADV_DONTNEED);
#endif
}

}  // namespace

Buffer Buffer::on_large_pages(size_t bytes) {
  static std::mutex mutex;
  static std::weak_ptr<std::byte> chunk;  // the one that is being filled, while somebody uses it
  static size_t used = 0;

  Buffer buffer;
  buffer.size_ = bytes;
  if (bytes == 0) return buffer;
  if (bytes > kChunk / 4) {
    buffer.data_ = allocate_large_pages(bytes);
    return buffer;
  }
  const std::lock_guard lock(mutex);
  std::shared_ptr<std::byte> owner = chunk.lock();
  if (!owner || bytes > kChunk - used) {
    owner = allocate_large_pages(kChunk);
    chunk = owner;
    used = 0;
  }
  // Others on the chunk may live on; the pages that were this buffer's alone are given back at once.
  buffer.data_ = {owner.get() + used, [owner, bytes](std::byte* p) {
                    if (owner.use_count() > 1) give_back(p, bytes);
                  }};
  used += align_up(bytes);
  return buffer;
}

void Buffer::populate() {
#ifdef MADV_POPULATE_WRITE
  std::byte* const end = data_.get() + size_;
  std::byte* at = data_.get() + (align_up(size_t(uintptr_t(data_.get())), kSmallPage) - size_t(uintptr_t(data_.get())));
  // Piece by piece: a call holds up those that want memory, and may find none on an older system.
  for (; at + kSmallPage <= end; at += kLargePage)
    if (madvise(at, std::min(kLargePage, size_t(end - at) / kSmallPage * kSmallPage), MADV_POPULATE_WRITE) != 0) return;
#endif
}

}  // namespace pocketlm
