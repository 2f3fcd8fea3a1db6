// Every item is done exactly once, phases are ordered, and a pool that nobody uses can go at any time.
#include "base/thread_pool.h"

#include <numeric>

#include "base/error.h"
#include "tests/check.h"

using namespace pocketlm;

namespace {

void every_item_is_done_once(int threads) {
  ThreadPool pool(threads);
  for (const int64_t count : {0, 1, 2, 7, 64, 1000}) {
    std::vector<std::atomic<int>> done(size_t(count) + 1);
    for (int repeat = 0; repeat < 20; ++repeat)
      pool.run([&](Worker& worker) {
        for (int phase = 0; phase < 3; ++phase)
          worker.each(count, 3, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) done[size_t(i)].fetch_add(1);
          });
      });
    for (int64_t i = 0; i < count; ++i) CHECK(done[size_t(i)] == 60);
  }
}

// A phase sees all that the phase before it wrote.
void phases_are_ordered(int threads) {
  ThreadPool pool(threads);
  std::vector<int64_t> a(512, 1), b(512);
  pool.run([&](Worker& worker) {
    for (int round = 0; round < 50; ++round) {
      worker.each(512, 5, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) b[size_t(i)] = a[size_t(511 - i)] + 1;
      });
      worker.each(512, 7, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) a[size_t(i)] = b[size_t(511 - i)];
      });
    }
  });
  CHECK(std::accumulate(a.begin(), a.end(), int64_t{0}) == 512 * 51);
}

}  // namespace

int main() {
  for (const int threads : {1, 2, 3, 5}) {
    every_item_is_done_once(threads);
    phases_are_ordered(threads);
    ThreadPool unused(threads);
  }
  CHECK_THROWS(std::invalid_argument, ThreadPool(0));
  return report();
}
