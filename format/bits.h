// SPDX-License-Identifier: Apache-2.0
// Bit fields: bit i of a byte string is bit i % 8 of byte i / 8, a field's lowest bit comes first.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace fkdb {

// A field is at most this wide, so that one load of 8 bytes from any byte holds it.
constexpr uint32_t kMaxFieldBits = 57;
// So many readable bytes must follow the last field.
constexpr size_t kBitPadding = 8;

static_assert(std::endian::native == std::endian::little, "bit fields are read by plain loads");

// The field of `count` <= kMaxFieldBits bits at `bit`; 0 for a field of zero bits.
inline uint64_t ReadBits(const uint8_t* bytes, uint64_t bit, uint32_t count) {
  uint64_t word;
  std::memcpy(&word, bytes + (bit >> 3), sizeof word);
  return word >> (bit & 7) & ((uint64_t{1} << count) - 1);
}

// `count` bits at `bit` to the bits of `to` from its first on; the last byte is filled up with zeros.
// Writes up to kBitPadding bytes behind them.
inline void CopyBits(const uint8_t* bytes, uint64_t bit, uint64_t count, uint8_t* to) {
  constexpr uint32_t kWhole = kMaxFieldBits / 8 * 8;
  for (; count > kWhole; count -= kWhole, bit += kWhole, to += kWhole / 8) {
    const uint64_t word = ReadBits(bytes, bit, kWhole);
    std::memcpy(to, &word, sizeof word);
  }
  const uint64_t word = ReadBits(bytes, bit, static_cast<uint32_t>(count));
  std::memcpy(to, &word, sizeof word);
}

// Fields one after another, several of them from one load.
class BitReader {
 public:
  BitReader(const uint8_t* bytes, uint64_t bit) : bytes_(bytes), bit_(bit) {}
  // The next field of `count` <= kMaxFieldBits bits.
  uint64_t Next(uint32_t count) {
    if (left_ < count) {
      word_ = ReadBits(bytes_, bit_, kMaxFieldBits);
      left_ = kMaxFieldBits;
    }
    const uint64_t field = word_ & ((uint64_t{1} << count) - 1);
    word_ >>= count;
    left_ -= count;
    bit_ += count;
    return field;
  }

 private:
  const uint8_t* bytes_;
  uint64_t bit_;  // of the next field
  uint64_t word_ = 0;
  uint32_t left_ = 0;
};

// Fields of `width` bits one behind the other, as many from one load as it holds.
struct FieldRun {
  uint32_t count, width, in_load = width > 0 ? kMaxFieldBits / width : count;

  // each(i, field), the first at `bit`.
  template <class Each>
  void Read(const uint8_t* bytes, uint64_t bit, Each each) const {
    const uint64_t mask = (uint64_t{1} << width) - 1;
    for (uint32_t i = 0; i < count; bit += uint64_t{in_load} * width) {
      uint64_t word = ReadBits(bytes, bit, kMaxFieldBits);
      for (const uint32_t end = std::min(count, i + in_load); i < end; ++i, word >>= width) each(i, word & mask);
    }
  }
};

class BitWriter {
 public:
  // value < 2^count, count <= kMaxFieldBits.
  void Put(uint64_t value, uint32_t count) {
    pending_ |= value << pending_bits_;
    pending_bits_ += count;
    for (; pending_bits_ >= 8; pending_bits_ -= 8, pending_ >>= 8) bytes_.push_back(static_cast<uint8_t>(pending_));
  }
  // The bytes, the last filled up with zero bits, and kBitPadding zero bytes after them.
  std::vector<uint8_t> Finish() && {
    if (pending_bits_ > 0) bytes_.push_back(static_cast<uint8_t>(pending_));
    bytes_.resize(bytes_.size() + kBitPadding);
    return std::move(bytes_);
  }

 private:
  std::vector<uint8_t> bytes_;
  uint64_t pending_ = 0;  // fewer than 8 bits between calls
  uint32_t pending_bits_ = 0;
};

}  // namespace fkdb
