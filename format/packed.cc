// SPDX-License-Identifier: Apache-2.0
#include "format/packed.h"

namespace fkdb {
namespace {

// Bits that hold every number from 0 to `largest`.
uint32_t BitsFor(uint32_t largest) { return static_cast<uint32_t>(std::bit_width(largest)); }

}  // namespace

PackedLayout LayOutPacked(const LabelSpec& spec, uint32_t width, uint32_t height, uint32_t crops,
                          uint32_t palette_size) {
  PackedLayout layout;
  switch (spec.boxes) {
    case BoxEncoding::kPixel:
      layout.row_bits = height > 0 ? BitsFor(height - 1) : 0;
      layout.column_bits = width > 0 ? BitsFor(width - 1) : 0;
      break;
    case BoxEncoding::kFractionF32:
      layout.row_bits = layout.column_bits = 32;
      break;
    case BoxEncoding::kFractionF16:
      layout.row_bits = layout.column_bits = 16;
      break;
    case BoxEncoding::kGrid:
      break;
  }
  layout.class_bits = BitsFor(spec.num_classes - 1);
  layout.palette_size = palette_size;
  layout.index_bits = palette_size > 0 ? BitsFor(palette_size - 1) : layout.class_bits;
  layout.indices_at = 2 * layout.row_bits + 2 * layout.column_bits + 1;
  layout.values_at = layout.indices_at + spec.num_indices() * layout.index_bits;
  layout.crop_bits = uint64_t{layout.values_at} + PackedValueBits(spec);
  layout.palette_at = crops * layout.crop_bits;
  layout.all_bits = layout.palette_at + uint64_t{palette_size} * layout.class_bits;
  return layout;
}

}  // namespace fkdb
