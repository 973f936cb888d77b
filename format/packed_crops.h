// SPDX-License-Identifier: Apache-2.0
// Internal to format/: a whole packed record at once, field after field over all crops, where reading it crop by crop costs
// several times as much.
#pragma once

#include "format/record.h"

namespace fkdb {

// Whether it is a record that ReadPackedCrops reads: of packed pixel boxes and probabilities, of not too many indices a crop, without operations.
bool IsReadAtOnce(const RecordView& view);

// The record's pixel_boxes, flips and indices, and with_values its values, sized by the caller. False: something in a crop is
// wrong, or the record is no such one; RecordView::ReadCrop then reads any, and says what is wrong.
bool ReadPackedCrops(const RecordView& view, bool with_values, Record* record);

}  // namespace fkdb
