#include "base/thread_pool.h"

#include "base/error.h"

namespace pocketlm {
namespace {

// About 100 microseconds: longer than the Python between two decode steps, far shorter than anyone's idle time.
constexpr int kSpins = 5000;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : size_(threads) {
  require(threads >= 1 && threads <= 1024, "threads must be between 1 and 1024");
  for (int i = 1; i < size_; ++i) threads_.emplace_back([this, i] { serve(i); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
}

void ThreadPool::run(const std::function<void(Worker&)>& job) {
  job_ = &job;
  first_phase_ = uint32_t(work_.load(std::memory_order_relaxed) >> 32);
  inside_.store(0, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  Worker worker(*this, 0);
  worker.phase_ = first_phase_;
  job(worker);
  // Whoever has not come by now need not; whoever is inside finds all phases over and leaves.
  inside_.fetch_or(kClosed, std::memory_order_acq_rel);
  for (int inside; (inside = inside_.load(std::memory_order_acquire)) != kClosed;) {
    for (int i = 0; i < kSpins && inside_.load(std::memory_order_acquire) == inside; ++i) pause();
    inside_.wait(inside, std::memory_order_acquire);
  }
}

void ThreadPool::serve(int index) {
  for (uint32_t seen = 0;;) {
    for (int i = 0; i < kSpins && generation_.load(std::memory_order_acquire) == seen; ++i) pause();
    generation_.wait(seen, std::memory_order_acquire);
    seen = generation_.load(std::memory_order_acquire);
    if (stopping_.load()) return;
    if (!enter()) continue;
    Worker worker(*this, index);
    worker.phase_ = first_phase_;
    (*job_)(worker);
    leave();
  }
}

bool ThreadPool::enter() {
  int inside = inside_.load(std::memory_order_acquire);
  while (!(inside & kClosed))
    if (inside_.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel, std::memory_order_acquire)) return true;
  return false;
}

void ThreadPool::leave() {
  inside_.fetch_sub(1, std::memory_order_acq_rel);
  inside_.notify_all();
}

void ThreadPool::wait_for_phase_after(uint32_t phase) {
  for (int i = 0;; ++i) {
    const uint64_t work = work_.load(std::memory_order_acquire);
    if (uint32_t(work >> 32) != phase) return;
    if (i < kSpins) pause();
    else work_.wait(work, std::memory_order_acquire);  // an item's thread is asleep: give it this core
  }
}

}  // namespace pocketlm
