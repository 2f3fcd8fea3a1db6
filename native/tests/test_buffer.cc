// Memory behind a buffer that is populated: it is there, and what was in it stays.
#include "base/buffer.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "tests/check.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

using namespace pocketlm;

namespace {

constexpr size_t kSmallPage = 4096;

// Pages of the buffer that have memory behind them; -1 where the system does not say.
int64_t resident([[maybe_unused]] Buffer& buffer) {
#if defined(__linux__) && defined(MADV_POPULATE_WRITE)
  const size_t skipped = align_up(size_t(uintptr_t(buffer.data())), kSmallPage) - size_t(uintptr_t(buffer.data()));
  std::vector<unsigned char> pages((buffer.size() - skipped) / kSmallPage);
  if (mincore(buffer.data() + skipped, pages.size() * kSmallPage, pages.data()) != 0) return -1;
  int64_t count = 0;
  for (const unsigned char page : pages) count += page & 1;
  return count;
#else
  return -1;
#endif
}

void populated_memory_keeps_its_content(Buffer buffer) {
  std::memset(buffer.data(), 7, 100);
  buffer.data()[buffer.size() - 1] = std::byte{9};
  const int64_t before = resident(buffer);
  buffer.populate();
  for (size_t i = 0; i < 100; ++i) CHECK(buffer.data()[i] == std::byte{7});
  CHECK(buffer.data()[buffer.size() - 1] == std::byte{9});
  const int64_t after = resident(buffer);
  CHECK(after >= before);
  if (after > before) CHECK(after >= int64_t(buffer.size() / kSmallPage) - 1);  // an older system has no such call
}

}  // namespace

int main() {
  populated_memory_keeps_its_content(Buffer(5'000'000));
  populated_memory_keeps_its_content(Buffer::on_large_pages(5'000'000));
  populated_memory_keeps_its_content(Buffer::on_large_pages(100'000'000));
  Buffer().populate();
  return report();
}
