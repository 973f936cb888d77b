// SPDX-License-Identifier: Apache-2.0
// Internal to format/.
#pragma once

#include <cstdint>
#include <cstring>

#include "format/bits.h"

namespace fkdb {

// Bit fields into a buffer of known length, with kBitPadding bytes behind.
class FieldWriter {
 public:
  explicit FieldWriter(uint8_t* to) : to_(to) {}
  void Put(uint64_t value, uint32_t count) {  // count <= kMaxFieldBits
    pending_ |= value << bits_;
    bits_ += count;
    std::memcpy(to_, &pending_, sizeof pending_);
    to_ += bits_ >> 3;
    pending_ = bits_ < 64 ? pending_ >> (bits_ & 56) : 0;
    bits_ &= 7;
  }

 private:
  uint8_t* to_;
  uint64_t pending_ = 0;
  uint32_t bits_ = 0;
};

}  // namespace fkdb
