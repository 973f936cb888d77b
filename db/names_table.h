// SPDX-License-Identifier: Apache-2.0
// All image keys of a finished label set, sorted bytewise, front-coded in one checksummed value:
// about 11 bytes a key. Little-endian:
//
//   0   magic      8 bytes  "FKDNAMES"
//   8   count      u64      keys
//   16  interval   u32      16: every 16th key is stored whole (a restart)
//   20  zero       u32
//   24  entries    u64      bytes of the entries
//   32  checksum   u64      XXH3-64 of two u64: XXH3-64 of bytes 0 to 31, and of bytes 40 to the end
//   40  restarts   ceil(count / 16) x u32, offsets into the entries
//       entries    each: shared (varint), rest length (varint), rest bytes; shared = bytes in common
//                  with the key before, 0 at a restart
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/result.h"

namespace fkdb {

// keys: sorted bytewise, no two alike. Errors: InvalidArgument (not so), ResourceExhausted (over
// 4 GiB of names).
Result<std::vector<std::byte>> BuildNamesTable(std::span<const std::string> keys);

// A names table where it lies. Borrows the bytes.
class NamesTable {
 public:
  NamesTable() = default;
  // Checks magic, sizes and checksum. Errors: Corruption.
  static Result<NamesTable> Open(std::span<const std::byte> bytes);

  uint64_t size() const { return count_; }
  // The ordinal of `key`, or none. O(log n). Errors: Corruption.
  Result<std::optional<uint64_t>> Find(std::string_view key) const;
  // ordinal < size(). Errors: Corruption.
  Result<std::string> Key(uint64_t ordinal) const;
  // Every key in order. Errors: Corruption (also where keys are not strictly ascending).
  Result<std::vector<std::string>> AllKeys() const;

 private:
  // Decodes the key at `*at` over the one before it in `key`; moves `*at` behind it.
  Result<void> Next(size_t* at, std::string* key) const;
  size_t Restart(uint64_t index) const;

  uint64_t count_ = 0;
  std::span<const std::byte> restarts_;
  std::span<const std::byte> entries_;
};

}  // namespace fkdb
