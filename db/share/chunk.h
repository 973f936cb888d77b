// SPDX-License-Identifier: Apache-2.0
// Internal to db/share/: a chunk, which is the columns of a group's heads or of one of its layers, each compressed on
// its own where that makes it smaller.
//
//   u32 columns; for each u32 bytes, u32 stored bytes (as many: stored as it is); then what is stored of each
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "db/sha256.h"
#include "format/columns.h"
#include "format/result.h"

namespace fkdb {

constexpr uint64_t kMaxChunkBytes = 64u << 20;  // of all its columns, uncompressed

// What a column's bytes are like.
enum class ColumnKind {
  kCodes,  // numbers without repeats: entropy coded alone
  kText,   // repeats
};

// Not for two threads at a time.
class ChunkCodec {
 public:
  ChunkCodec();
  ~ChunkCodec();

  // kinds: of each column. The columns take at most kMaxChunkBytes.
  std::vector<std::byte> Encode(const Columns& columns, std::span<const ColumnKind> kinds);
  // Each column with room for `padding` more bytes. Errors: Corruption (whatever is not as Encode makes it).
  Result<Columns> Decode(std::span<const std::byte> chunk, size_t columns, size_t padding);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Their identity: the SHA-256 of the columns' SHA-256s.
Sha256::Hash HashColumns(const Columns& columns);

}  // namespace fkdb
