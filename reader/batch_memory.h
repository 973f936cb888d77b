// SPDX-License-Identifier: Apache-2.0
// Memory that batches are made in again and again.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace fkdb {

// Where a batch's buffers come from: the heap unless both are given; pinned memory, for instance.
struct BatchMemory {
  std::function<void*(size_t bytes)> allocate;  // aligned to 64 bytes; null: there is none, std::bad_alloc
  std::function<void(void*)> release;           // must outlive the buffers
};

// Bytes that only grow. One that was moved from can only be assigned to.
class BatchBuffer {
 public:
  explicit BatchBuffer(BatchMemory memory = {});

  // What is in it may be lost. Throws std::bad_alloc.
  void Resize(size_t bytes);

  std::byte* data() const { return bytes_.get(); }
  size_t size() const { return size_; }

 private:
  BatchMemory memory_;
  size_t size_ = 0, capacity_ = 0;
  std::unique_ptr<std::byte[], std::function<void(void*)>> bytes_;
};

}  // namespace fkdb
