// SPDX-License-Identifier: Apache-2.0
#include "reader/batch_memory.h"

#include <new>
#include <utility>

namespace fkdb {
namespace {

constexpr std::align_val_t kAlignment{64};

void* AllocateOnHeap(size_t bytes) { return ::operator new[](bytes, kAlignment); }
void ReleaseOnHeap(void* p) { ::operator delete[](p, kAlignment); }

}  // namespace

BatchBuffer::BatchBuffer(BatchMemory memory)
    : memory_(memory.allocate && memory.release ? std::move(memory) : BatchMemory{AllocateOnHeap, ReleaseOnHeap}),
      bytes_(nullptr, memory_.release) {}

void BatchBuffer::Resize(size_t bytes) {
  size_ = 0;  // should there be no memory
  if (bytes > capacity_) {
    auto* memory = static_cast<std::byte*>(memory_.allocate(bytes));
    if (memory == nullptr) throw std::bad_alloc();
    bytes_.reset(memory);
    capacity_ = bytes;
  }
  size_ = bytes;
}

}  // namespace fkdb
