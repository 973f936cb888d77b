// SPDX-License-Identifier: Apache-2.0
// The `packed` encoding: all crops of one image as bit fields of one width, so that any crop is
// read in O(1) where it lies. FORMAT.md section "Packed records" is its contract.
//
//   bits    crop 0, crop 1, .. crop M - 1, palette, zero bits to the next byte; then 8 zero bytes
//   crop    box, flip (1), K indices, values
//   box     pixel: top, left, height - 1, width - 1, as wide as the image's own sides need
//           fraction: the four numbers' float32 or binary16 bits
//   index   a position in the palette, or, where the palette is empty, the class itself
//   palette the classes that occur in this image, ascending, each as wide as C - 1 needs
#pragma once

#include <bit>
#include <cstdint>

#include "format/bits.h"
#include "format/box.h"
#include "format/label_spec.h"

namespace fkdb {

// Where the fields of one record lie; all in bits.
struct PackedLayout {
  uint32_t row_bits = 0;      // width of top and of height - 1 (fractions: of each number)
  uint32_t column_bits = 0;   // width of left and of width - 1
  uint32_t index_bits = 0;    // width of an index
  uint32_t class_bits = 0;    // width of a palette entry
  uint32_t palette_size = 0;
  uint32_t indices_at = 0;    // in a crop; the flip is the bit before
  uint32_t values_at = 0;     // in a crop
  uint64_t crop_bits = 0;
  uint64_t palette_at = 0;    // in the record
  uint64_t all_bits = 0;

  uint64_t bytes() const { return (all_bits + 7) / 8 + kBitPadding; }
};

PackedLayout LayOutPacked(const LabelSpec& spec, uint32_t width, uint32_t height, uint32_t crops, uint32_t palette_size);

// One crop's values, coded (FORMAT.md section "Packed values"): how many bits they take, from
// (num_values) floats to those bits, and back. The values must be what RecordView::ValidateCrop
// accepts. What is read back never sums above 1 and keeps the order.
uint32_t PackedValueBits(const LabelSpec& spec);
void PackValues(const LabelSpec& spec, const float* values, BitWriter* out);
void UnpackValues(const LabelSpec& spec, const uint8_t* bytes, uint64_t bit, float* out);
// Of so many crops, whose values lie `stride` bits apart: (crops, num_values).
void UnpackValues(const LabelSpec& spec, const uint8_t* bytes, uint64_t bit, uint64_t stride, size_t crops, float* out);

}  // namespace fkdb
