// SPDX-License-Identifier: Apache-2.0
// Internal to format/: a whole packed record at once, field after field over all crops, where reading it crop by crop costs
// several times as much.
#pragma once

#include "format/record.h"

namespace fkdb {

// The box of a crop whose first bits are `word`; behind them is the flip.
inline PixelBox BoxOf(uint64_t word, const PackedLayout& layout) {
  const uint32_t rows = layout.row_bits, columns = layout.column_bits;
  const uint64_t row_mask = (uint64_t{1} << rows) - 1, column_mask = (uint64_t{1} << columns) - 1;
  return {static_cast<uint32_t>(word & row_mask), static_cast<uint32_t>(word >> rows & column_mask),
          static_cast<uint32_t>(word >> (rows + columns) & row_mask) + 1, static_cast<uint32_t>(word >> (2 * rows + columns) & column_mask) + 1};
}

// Whether it is a record that ReadPackedCrops reads: of packed pixel boxes and probabilities, of not too many indices a crop,
// without operations.
bool IsReadAtOnce(const RecordView& view);

// The record's pixel_boxes, flips and indices, and with_values its values, sized by the caller. False: something in a crop is
// wrong, or the record is no such one; RecordView::ReadCrop then reads any, and says what is wrong.
bool ReadPackedCrops(const RecordView& view, bool with_values, Record* record);

}  // namespace fkdb
