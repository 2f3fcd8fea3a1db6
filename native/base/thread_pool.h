// A persistent team of threads that walks through a step together.
//
// One `run` wakes the team once; inside it, phases are separated by barriers, so a step of several hundred phases
// costs several hundred barriers and no wake-ups. Work inside a phase is handed out by a shared cursor: a thread that
// the machine slows down simply takes less. Which thread computes an item never changes its result.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace pocketlm {

class ThreadPool;

// One thread's handle inside ThreadPool::run.
class Worker {
 public:
  int index() const { return index_; }

  // Calls body(begin, end) for consecutive ranges of at most `grain` items that together cover [0, count), shared
  // between all threads; returns when every thread is done. Every thread must make the same calls in the same order.
  template <class Body>
  void each(int64_t count, int64_t grain, Body&& body);

 private:
  friend class ThreadPool;
  Worker(ThreadPool& pool, int index) : pool_(pool), index_(index) {}
  ThreadPool& pool_;
  int index_;
};

// Single-threaded from outside: one `run` at a time.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Runs job(worker) on every thread, the caller's included. The job must not throw.
  void run(const std::function<void(Worker&)>& job);

 private:
  friend class Worker;
  void serve(int index);
  void barrier();

  const int size_;
  const std::function<void(Worker&)>* job_ = nullptr;
  alignas(64) std::atomic<uint32_t> generation_{0};  // counts runs; workers sleep on it
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};       // counts barriers
  alignas(64) std::atomic<int64_t> cursor_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::jthread> threads_;
};

template <class Body>
void Worker::each(int64_t count, int64_t grain, Body&& body) {
  if (pool_.size_ == 1) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  for (;;) {
    const int64_t begin = pool_.cursor_.fetch_add(grain, std::memory_order_relaxed);
    if (begin >= count) break;
    body(begin, begin + grain < count ? begin + grain : count);
  }
  pool_.barrier();
}

}  // namespace pocketlm
