// SPDX-License-Identifier: Apache-2.0
// Which of consecutive ranges of numbers holds a number, in O(1) where their sizes are alike: what
// finds the block of an image, and the shard.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fkdb {

class RangeIndex {
 public:
  RangeIndex() = default;
  // starts: of the ranges, strictly ascending, the first 0; the last range ends before `end`.
  RangeIndex(std::vector<uint64_t> starts, uint64_t end) : starts_(std::move(starts)) {
    if (starts_.empty()) return;
    // A search begins at the range of a multiple of the mean size, from where it has a step or two to go.
    shift_ = std::bit_width(end / starts_.size());
    size_t range = 0;
    for (uint64_t at = 0; at < end; at += uint64_t{1} << shift_) {
      while (range + 1 < starts_.size() && starts_[range + 1] <= at) ++range;
      ranges_.push_back(static_cast<uint32_t>(range));
    }
  }

  uint64_t start(size_t range) const { return starts_[range]; }

  // n < end.
  size_t Find(uint64_t n) const {
    size_t range = ranges_[n >> shift_];
    while (range + 1 < starts_.size() && starts_[range + 1] <= n) ++range;
    return range;
  }

 private:
  std::vector<uint64_t> starts_;
  int shift_ = 0;
  std::vector<uint32_t> ranges_;
};

}  // namespace fkdb
