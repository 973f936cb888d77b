// SPDX-License-Identifier: Apache-2.0
// Internal to format/: pixel boxes and flips as a bit stream, coded in as few whole bits as the image's size and the
// recipe's ratios leave open; and the bit streams themselves, of a column's length.
//
//   height - 1 below H, width - w0 below the widths' number, top * (W - width + 1) + left below their number, each in
//   truncated binary: x below n, k = floor(log2 n), u = 2^(k + 1) - n: x < u takes k bits; otherwise x + u, its upper k
//   bits, then its lowest. flip 1 bit.
//   widths: if all crops of the image lie there, [max(1, [h r0] - 1), min(W, [h r1] + 2)] of the recipe's ratio r; else [1, W]
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "format/bits.h"
#include "format/box.h"

namespace fkdb {

// The widths that a box of this height can have.
struct WidthRange {
  uint32_t low, high;  // low > high: none
};

inline WidthRange WidthsOf(uint32_t height, uint32_t image_width, bool expected, const std::array<double, 2>& ratio) {
  if (!expected) return {1, image_width};
  const double low = height * ratio[0], high = height * ratio[1], most = image_width;
  WidthRange range = {1, image_width};
  if (low >= 2) range.low = low < most + 2 ? static_cast<uint32_t>(low) - 1 : image_width + 1;
  if (high < most) range.high = std::min(image_width, static_cast<uint32_t>(high) + 2);
  return range;
}

// Bits to the end of a column; whole bytes at Finish.
class BitColumn {
 public:
  void Put(uint64_t value, uint32_t count) {  // value < 2^count, count <= kMaxFieldBits
    pending_ |= value << bits_;
    bits_ += count;
    if (bits_ < 8) return;
    const size_t at = bytes_.size();
    const uint32_t whole = bits_ / 8;
    bytes_.resize(at + whole);
    std::memcpy(bytes_.data() + at, &pending_, whole);
    pending_ = whole == 8 ? 0 : pending_ >> (whole * 8);
    bits_ -= whole * 8;
  }
  void PutWide(uint64_t value, uint32_t count) {  // count <= 64
    const uint32_t low = std::min(count, 32u);
    Put(value & ((uint64_t{1} << low) - 1), low);
    if (count > low) Put(value >> low, count - low);
  }
  void PutBelow(uint64_t value, uint64_t bound) {
    const auto k = static_cast<uint32_t>(std::bit_width(bound)) - 1;
    const uint64_t spare = (uint64_t{2} << k) - bound;
    if (value < spare) return PutWide(value, k);
    value += spare;
    PutWide(value >> 1, k);
    Put(value & 1, 1);
  }
  std::vector<uint8_t> Finish() {
    if (bits_ > 0) bytes_.push_back(static_cast<uint8_t>(pending_));
    pending_ = bits_ = 0;
    return std::move(bytes_);
  }

 private:
  std::vector<uint8_t> bytes_;
  uint64_t pending_ = 0;  // fewer than 8 bits between calls
  uint32_t bits_ = 0;
};

// Reads such a column. A read beyond its end gives zeros of the padding that must follow and is seen by Overran.
class BitColumnReader {
 public:
  static constexpr size_t kPadding = 64;  // readable bytes that must follow the column

  BitColumnReader() = default;
  BitColumnReader(const uint8_t* bytes, size_t size) : bytes_(bytes), end_(uint64_t{size} * 8) {}

  uint64_t Next(uint32_t count) {  // count <= kMaxFieldBits
    const uint64_t field = ReadBits(bytes_, at_, count);
    at_ += count;
    return field;
  }
  uint64_t NextWide(uint32_t count) {  // count <= 64
    const uint32_t low = std::min(count, 32u);
    const uint64_t field = Next(low);
    return count > low ? field | Next(count - low) << low : field;
  }
  uint64_t NextBelow(uint64_t bound) {
    const auto k = static_cast<uint32_t>(std::bit_width(bound)) - 1;
    const uint64_t spare = (uint64_t{2} << k) - bound, value = NextWide(k);
    return value < spare ? value : (value << 1 | Next(1)) - spare;
  }
  // To be asked at least once for every kPadding - 8 bytes that were read.
  bool Overran() const { return at_ > end_; }
  // Whether only the last byte's unused bits are left, and they are zeros.
  bool AtEnd() const { return end_ - at_ < 8 && (at_ == end_ || ReadBits(bytes_, at_, static_cast<uint32_t>(end_ - at_)) == 0); }

 private:
  const uint8_t* bytes_ = nullptr;
  uint64_t at_ = 0, end_ = 0;
};

// False if the image has no such box.
inline bool PutBox(const PixelBox& b, bool flip, uint32_t width, uint32_t height, bool expected, const std::array<double, 2>& ratio,
                   BitColumn* out) {
  if (b.height == 0 || b.width == 0 || uint64_t{b.top} + b.height > height || uint64_t{b.left} + b.width > width) return false;
  const WidthRange widths = WidthsOf(b.height, width, expected, ratio);
  out->PutBelow(b.height - 1, height);
  out->PutBelow(b.width - widths.low, uint64_t{widths.high} - widths.low + 1);
  const uint64_t columns = width - b.width + uint64_t{1};
  out->PutBelow(b.top * columns + b.left, (height - b.height + uint64_t{1}) * columns);
  out->Put(flip, 1);
  return true;
}

// False if there is no such box; `width` and `height` are at least 1.
inline bool NextBox(BitColumnReader* in, uint32_t width, uint32_t height, bool expected, const std::array<double, 2>& ratio,
                    PixelBox* b, bool* flip) {
  b->height = static_cast<uint32_t>(in->NextBelow(height)) + 1;
  const WidthRange widths = WidthsOf(b->height, width, expected, ratio);
  if (widths.low > widths.high) return false;
  b->width = widths.low + static_cast<uint32_t>(in->NextBelow(uint64_t{widths.high} - widths.low + 1));
  const uint64_t columns = width - b->width + uint64_t{1};
  const uint64_t place = in->NextBelow((height - b->height + uint64_t{1}) * columns);
  b->top = static_cast<uint32_t>(place / columns);
  b->left = static_cast<uint32_t>(place % columns);
  *flip = in->Next(1) != 0;
  return !in->Overran();
}

}  // namespace fkdb
