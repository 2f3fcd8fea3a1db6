#include "base/probe.h"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "base/buffer.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace pocketlm {
namespace {

constexpr size_t kChunk = size_t{1} << 20;
// Two cache lines at a time: no sum waits for the one before, and 8 registers of the smallest vectors hold them all.
constexpr size_t kLanes = 16;

// A pointless sum, but one that the compiler cannot leave out: it is returned.
uint64_t sum(const uint64_t* data) {
  std::array<uint64_t, kLanes> lanes{};
  for (size_t i = 0; i < kChunk / sizeof(uint64_t); i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += data[i + lane];
  uint64_t total = 0;
  for (const uint64_t lane : lanes) total += lane;
  return total;
}

// Pages of 4 KiB would measure the address translation, too.
void ask_for_huge_pages([[maybe_unused]] Buffer& buffer) {
#ifdef __linux__
  constexpr size_t kPage = 4096;
  const size_t skipped = align_up(reinterpret_cast<uintptr_t>(buffer.data()), kPage) - reinterpret_cast<uintptr_t>(buffer.data());
  if (buffer.size() > skipped + kPage) madvise(buffer.data() + skipped, (buffer.size() - skipped) / kPage * kPage, MADV_HUGEPAGE);
#endif
}

}  // namespace

std::vector<double> read_bandwidth(int threads, size_t bytes, int passes) {
  require(bytes >= kChunk && passes >= 1, "read_bandwidth wants at least 1 MiB and 1 pass");
  const auto chunks = int64_t(bytes / kChunk);
  Buffer buffer(size_t(chunks) * kChunk);
  ask_for_huge_pages(buffer);
  ThreadPool pool(threads);
  pool.run([&](Worker& worker) {
    worker.each(chunks, 1, [&](int64_t begin, int64_t end) {
      std::memset(buffer.data() + size_t(begin) * kChunk, 1, size_t(end - begin) * kChunk);
    });
  });
  std::atomic<uint64_t> total{0};
  std::vector<double> rates;
  for (int pass = 0; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](Worker& worker) {
      worker.each(chunks, 4, [&](int64_t begin, int64_t end) {
        uint64_t part = 0;
        for (int64_t chunk = begin; chunk < end; ++chunk) part += sum(buffer.as<uint64_t>() + size_t(chunk) * kChunk / sizeof(uint64_t));
        total.fetch_add(part, std::memory_order_relaxed);
      });
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    rates.push_back(double(buffer.size()) / seconds.count());
  }
  constexpr uint64_t kOnes = 0x0101010101010101;
  require(total.load() == kOnes * (buffer.size() / sizeof(uint64_t)) * uint64_t(passes), "read_bandwidth read something else");
  return rates;
}

}  // namespace pocketlm
