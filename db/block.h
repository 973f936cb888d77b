// SPDX-License-Identifier: Apache-2.0
// A block: the records of consecutive images in one LMDB value, so that 4 KiB pages are not wasted
// on records of 2 to 5 KB. Little-endian:
//
//   0   magic          8 bytes  "FKDBLOCK"
//   8   version        u32      1
//   12  count          u32      images in this block, >= 1
//   16  first_ordinal  u64      of its first image; equals the LMDB key
//   24  total_bytes    u64      of the whole block
//   32  checksum       u64      XXH3-64 of two u64: XXH3-64 of bytes 0 to 31, and of bytes 40 to the
//                               end of the directory
//   40  zero           24 bytes
//   64  directory      count x { offset u32, length u32, checksum u64 (XXH3-64 of the record) }
//       records        each 8-byte aligned, in ordinal order, right after one another
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "format/result.h"

namespace fkdb {

constexpr size_t kBlockHeaderBytes = 64;
constexpr size_t kBlockEntryBytes = 16;

// Joins records (each a multiple of 8 bytes) into one block.
std::vector<std::byte> BuildBlock(uint64_t first_ordinal,
                                  std::span<const std::vector<std::byte>> records);

// The size BuildBlock would give.
inline uint64_t BlockBytes(size_t count, uint64_t record_bytes) {
  return kBlockHeaderBytes + count * kBlockEntryBytes + record_bytes;
}

// A block where it lies. Borrows the bytes.
class BlockView {
 public:
  // Checks magic, version, sizes and the checksum of header and directory.
  // Errors: Corruption; Unsupported (newer block version).
  static Result<BlockView> Open(std::span<const std::byte> bytes, uint64_t first_ordinal);

  // The same of a block that Open accepted before, of `count` images: reads nothing.
  static BlockView Known(std::span<const std::byte> bytes, uint32_t count);

  uint32_t count() const { return count_; }
  // The record at `position` < count(), its checksum verified. Errors: Corruption.
  Result<std::span<const std::byte>> Record(uint32_t position) const;
  // Bytes of all records together.
  uint64_t record_bytes() const { return bytes_.size() - BlockBytes(count_, 0); }

 private:
  std::span<const std::byte> bytes_;
  uint32_t count_ = 0;
};

// Where a block says its record `position` lies, nothing checked but that it is inside the block
// (else empty): for prefetching only.
std::span<const std::byte> UncheckedRecord(std::span<const std::byte> block, uint64_t position);

}  // namespace fkdb
