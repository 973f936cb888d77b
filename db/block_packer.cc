// SPDX-License-Identifier: Apache-2.0
#include "db/block_packer.h"

#include <iterator>

#include "db/block.h"

namespace fkdb {
namespace {

// LMDB's overflow runs: whole pages, the first with a header of 16 bytes.
uint64_t PageBytes(uint64_t value_bytes) { return (value_bytes + 16 + 4095) / 4096 * 4096; }

}  // namespace

void BlockPacker::Add(std::vector<std::byte> record) {
  record_bytes_ += record.size();
  records_.push_back(std::move(record));
}

uint64_t BlockPacker::BytesOf(size_t count) const { return BlockBytes(count, record_bytes_); }

std::vector<std::vector<std::byte>> BlockPacker::TakeBlock() {
  size_t best = 1;
  double best_share = 1;
  uint64_t bytes = 0;
  for (size_t n = 1; n <= records_.size(); ++n) {
    bytes += records_[n - 1].size();
    const uint64_t block = BlockBytes(n, bytes), pages = PageBytes(block);
    if (n > 1 && block > 2 * target_bytes_) break;
    // Below half the target a block is a last resort, the longer the better.
    const double share =
        block < target_bytes_ / 2 ? 1 : static_cast<double>(pages - block) / static_cast<double>(pages);
    if (share > best_share) continue;
    best = n;
    best_share = share;
  }
  const auto end = records_.begin() + static_cast<ptrdiff_t>(best);
  std::vector<std::vector<std::byte>> block(std::make_move_iterator(records_.begin()), std::make_move_iterator(end));
  records_.erase(records_.begin(), end);
  for (const auto& record : block) record_bytes_ -= record.size();
  return block;
}

}  // namespace fkdb
