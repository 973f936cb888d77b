// SPDX-License-Identifier: Apache-2.0
// XXH3: finds damage and tells keys apart inside one label set. It never stands for identity, and
// it does not resist an adversary: the logical digest (db/digest.h) does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace fkdb {

using ContentHash = std::array<uint8_t, 16>;  // XXH3-128, canonical (big-endian) byte order

uint64_t Hash64(std::span<const std::byte> bytes);
inline uint64_t Hash64(std::string_view text) { return Hash64(std::as_bytes(std::span(text))); }

// Of an image file's bytes, as stored in its record.
ContentHash HashContent(std::span<const std::byte> bytes);

}  // namespace fkdb
