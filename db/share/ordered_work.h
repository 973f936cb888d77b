// SPDX-License-Identifier: Apache-2.0
// Jobs on several threads, their results in order, never more than a few at a time in memory.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "format/result.h"

namespace fkdb {

template <class Job, class Out>
class OrderedWork {
 public:
  // next: the next job, none after the last; called by one thread at a time. work: called by several. With one thread
  // both run within Next.
  OrderedWork(int threads, std::function<Result<std::optional<Job>>()> next, std::function<Result<Out>(Job)> work)
      : next_(std::move(next)), work_(std::move(work)), window_(static_cast<size_t>(threads) + 2) {
    for (int t = 0; t < threads && threads > 1; ++t) threads_.emplace_back([this] { Run(); });
  }
  ~OrderedWork() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
  }
  OrderedWork(const OrderedWork&) = delete;
  OrderedWork& operator=(const OrderedWork&) = delete;

  // The next result, none after the last. After an error nothing more is to be asked.
  Result<std::optional<Out>> Next() {
    if (threads_.empty()) {
      FKDB_ASSIGN(std::optional<Job> job, next_());
      if (!job) return std::optional<Out>();
      FKDB_ASSIGN(Out out, work_(std::move(*job)));
      return std::optional<Out>(std::move(out));
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return slots_.empty() ? ended_ : slots_.front()->has_value(); });
    if (slots_.empty()) return std::optional<Out>();
    Result<Out> out = std::move(**slots_.front());
    slots_.pop_front();
    lock.unlock();
    changed_.notify_all();
    if (!out) return Fail(std::move(out).error());
    return std::optional<Out>(std::move(*out));
  }

 private:
  using Slot = std::optional<Result<Out>>;

  void Run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return ended_ || slots_.size() < window_; });
      if (ended_) return;
      Result<std::optional<Job>> job = next_();
      if (job && !*job) {
        ended_ = true;
        changed_.notify_all();
        return;
      }
      Slot* const slot = slots_.emplace_back(std::make_unique<Slot>()).get();
      if (!job) {
        slot->emplace(Fail(std::move(job).error()));
        ended_ = true;
        changed_.notify_all();
        return;
      }
      lock.unlock();
      Result<Out> out = work_(std::move(**job));
      lock.lock();
      slot->emplace(std::move(out));
      changed_.notify_all();
    }
  }

  std::function<Result<std::optional<Job>>()> next_;
  std::function<Result<Out>(Job)> work_;
  const size_t window_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<Slot>> slots_;
  bool ended_ = false;
  std::vector<std::jthread> threads_;  // last: they end first
};

}  // namespace fkdb
