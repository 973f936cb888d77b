// SPDX-License-Identifier: Apache-2.0
// Whole numbers below 2^32 in as few bytes as they need: base 128, low digits first, the top bit set
// in all bytes but the last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fkdb {

inline void AppendVarint(std::vector<std::byte>& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<std::byte>(value | 0x80));
  out.push_back(static_cast<std::byte>(value));
}

// Reads the number at `*at` and moves behind it. False when the bytes end first or the number does
// not fit 32 bits.
inline bool ReadVarint(std::span<const std::byte> in, size_t* at, uint32_t* value) {
  uint64_t result = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    if (*at >= in.size()) return false;
    const auto byte = static_cast<uint8_t>(in[(*at)++]);
    result |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) {
      *value = static_cast<uint32_t>(result);
      return result <= UINT32_MAX;
    }
  }
  return false;
}

}  // namespace fkdb
