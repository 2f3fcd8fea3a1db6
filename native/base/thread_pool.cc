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
  cursor_.store(0, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  Worker worker(*this, 0);
  job(worker);
  if (size_ > 1) barrier();
}

void ThreadPool::serve(int index) {
  Worker worker(*this, index);
  for (uint32_t seen = 0;;) {
    for (int i = 0; i < kSpins && generation_.load(std::memory_order_acquire) == seen; ++i) pause();
    generation_.wait(seen, std::memory_order_acquire);
    if (stopping_.load()) return;
    ++seen;
    (*job_)(worker);
    barrier();
  }
}

// The last thread to arrive resets the cursor and opens the next phase.
void ThreadPool::barrier() {
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    cursor_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  for (int i = 0; phase_.load(std::memory_order_acquire) == phase; ++i) {
    if (i < kSpins) pause();
    else std::this_thread::yield();  // more threads than cores: let the others finish
  }
}

}  // namespace pocketlm
