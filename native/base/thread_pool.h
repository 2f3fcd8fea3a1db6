// A persistent team of threads that walks through a step together.
//
// One `run` wakes the team once; inside it, a step of several hundred phases costs no further wake-ups. The items of a
// phase are handed out by a shared cursor, and a phase ends when its items are done, not when every thread has come by:
// a thread that the machine has put to sleep delays nobody unless it sleeps over an item, and catches up by skipping
// the phases that are over. Which thread computes an item never changes its result.
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

  // Calls body(begin, end) for ranges that together cover [0, count), count < 2^31, shared between the threads; returns
  // when all of them are done. Every thread must make the same calls in the same order. Ranges begin long, so that
  // memory is read in long runs, and get shorter down to `grain` items, so that the threads end together.
  template <class Body>
  void each(int64_t count, int64_t grain, Body&& body);

 private:
  friend class ThreadPool;
  Worker(ThreadPool& pool, int index) : pool_(pool), index_(index) {}
  ThreadPool& pool_;
  const int index_;
  uint32_t phase_ = 0;  // of the next `each`
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
  static constexpr int kClosed = 1 << 30;

  void serve(int index);
  bool enter();
  void leave();
  void wait_for_phase_after(uint32_t phase);

  const int size_;
  const std::function<void(Worker&)>* job_ = nullptr;
  uint32_t first_phase_ = 0;                        // of the job
  alignas(64) std::atomic<uint32_t> generation_{0};  // counts runs; idle threads sleep on it
  alignas(64) std::atomic<int> inside_{kClosed};     // threads in the job, beside the caller's; kClosed: no more may enter
  alignas(64) std::atomic<uint64_t> work_{0};        // phase << 32 | next item
  alignas(64) std::atomic<int64_t> done_{0};         // items of the phase
  std::atomic<bool> stopping_{false};
  std::vector<std::jthread> threads_;
};

template <class Body>
void Worker::each(int64_t count, int64_t grain, Body&& body) {
  if (count <= 0) return;
  if (pool_.size_ == 1) {
    body(int64_t{0}, count);
    return;
  }
  const uint32_t phase = phase_++;
  uint64_t work = pool_.work_.load(std::memory_order_acquire);
  for (;;) {
    const auto begin = int64_t(uint32_t(work));
    if (uint32_t(work >> 32) != phase || begin >= count) break;
    const int64_t left = count - begin, share = left / (2 * pool_.size_), take = share > grain ? share : grain;
    if (!pool_.work_.compare_exchange_weak(work, work + uint64_t(take), std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    const int64_t end = take < left ? begin + take : count;
    body(begin, end);
    if (pool_.done_.fetch_add(end - begin, std::memory_order_acq_rel) + end - begin == count) {
      pool_.done_.store(0, std::memory_order_relaxed);
      pool_.work_.store(uint64_t(phase + 1) << 32, std::memory_order_release);
      pool_.work_.notify_all();
      return;
    }
    work = pool_.work_.load(std::memory_order_acquire);
  }
  pool_.wait_for_phase_after(phase);
}

}  // namespace pocketlm
