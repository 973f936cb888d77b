// SPDX-License-Identifier: Apache-2.0
// Decides which consecutive images share a block, so that little of its last 4 KiB page is wasted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "format/result.h"

namespace fkdb {

constexpr size_t kDefaultBlockBytes = 64 << 10;

class BlockPacker {
 public:
  explicit BlockPacker(size_t target_bytes = kDefaultBlockBytes) : target_bytes_(target_bytes) {}

  void Add(std::vector<std::byte> record);
  bool empty() const { return records_.empty(); }
  size_t size() const { return records_.size(); }
  // Enough records wait to choose a good end among them.
  bool ready() const { return BytesOf(records_.size()) >= 2 * target_bytes_; }
  // The waiting records, in order.
  std::span<const std::vector<std::byte>> records() const { return records_; }
  // The records of the next block: of all that end between a half and two of the target size, the
  // choice that wastes the smallest share of its pages; one record alone if it is larger than that.
  std::vector<std::vector<std::byte>> TakeBlock();

 private:
  uint64_t BytesOf(size_t count) const;

  size_t target_bytes_;
  std::vector<std::vector<std::byte>> records_;
  uint64_t record_bytes_ = 0;
};

}  // namespace fkdb
