// SPDX-License-Identifier: Apache-2.0
// Numbered pieces of work for several threads, whose results come out in the order of their numbers.
// At most `ahead` pieces are under way or waiting, so memory stays bounded however slow one is.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "format/result.h"

namespace fkdb {

template <class T>
class OrderedQueue {
 public:
  // Pieces first .. end - 1.
  OrderedQueue(uint64_t first, uint64_t end, uint64_t ahead)
      : next_(first), wanted_(first), end_(end), ahead_(ahead) {}

  // The next piece to work on, waiting for room; none when there is no more, or after Close.
  std::optional<uint64_t> Claim() {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return closed_ || next_ >= end_ || next_ < wanted_ + ahead_; });
    if (closed_ || next_ >= end_) return std::nullopt;
    return next_++;
  }

  // The result of a claimed piece. Every claimed piece must be delivered.
  void Deliver(uint64_t piece, T result) {
    const std::lock_guard lock(mutex_);
    done_.emplace(piece, std::move(result));
    arrived_.notify_one();
  }

  // Whoever claimed `piece` found that there is no such piece, nor one behind it: they need not be delivered.
  void EndAt(uint64_t piece) {
    const std::lock_guard lock(mutex_);
    end_ = std::min(end_, piece);
    room_.notify_all();
    arrived_.notify_one();
  }

  // The next result in order, or none if it does not arrive within `patience` or all were taken. One caller.
  std::optional<T> Take(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, patience, [&] { return done_.contains(wanted_) || wanted_ >= end_; });
    if (!done_.contains(wanted_)) return std::nullopt;
    auto node = done_.extract(wanted_++);
    room_.notify_all();
    return std::move(node.mapped());
  }

  // All results were taken.
  bool finished() const {
    const std::lock_guard lock(mutex_);
    return wanted_ >= end_;
  }

  // Ends the work: Claim gives no more pieces. The workers can then be joined.
  void Close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    room_.notify_all();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable room_, arrived_;
  uint64_t next_, wanted_, end_;
  const uint64_t ahead_;
  bool closed_ = false;
  std::map<uint64_t, T> done_;
};

// What `work` returns; what it throws becomes an error, as it must on a thread.
template <class Work>
auto Guarded(const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return Fail(ErrorCode::kResourceExhausted, "out of memory: fewer workers or smaller batches need less");
  } catch (const std::exception& e) {
    return Fail(ErrorCode::kIoError, std::string("a worker failed: ") + e.what());
  }
}

// Starts `count` threads that run `body`. Errors: ResourceExhausted; those that were started run on.
template <class Body>
Result<void> StartThreads(int count, const Body& body, std::vector<std::jthread>* threads) {
  try {
    for (int i = 0; i < count; ++i) threads->emplace_back(body);
  } catch (const std::exception& e) {
    return Fail(ErrorCode::kResourceExhausted, "cannot start " + std::to_string(count) + " threads: " + e.what());
  }
  return {};
}

// A worker's life: claims pieces, works on them (`work`: a piece's number to Result<T>), delivers, until
// there are no more.
template <class T, class Work>
void WorkThrough(OrderedQueue<Result<T>>* queue, const Work& work) {
  while (const std::optional<uint64_t> piece = queue->Claim()) {
    queue->Deliver(*piece, Guarded([&]() -> Result<T> { return work(*piece); }));
  }
}

}  // namespace fkdb
