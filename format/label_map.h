// SPDX-License-Identifier: Apache-2.0
// What a label map says of a crop (LabelPooling of ReLabel, Yun et al. 2021; FKD paper Fig. 5).
//
//   map     (C, grid_height, grid_width): each cell's K scores at its K classes, 0 at the others
//   region  the crop as fractions of the image's sides, times the grid's, less half a cell; a side below one cell is one
//   scores  (C): the mean of the map's bilinear values at the middles of n x m equal parts of the region, where n and m are its
//           sides rounded up: RoIAlign to one bin, as torchvision.ops.roi_align does it by default
//   label   softmax(scores) over all C classes; a flip changes nothing
#pragma once

#include <span>

#include "format/box.h"
#include "format/record.h"
#include "format/result.h"

namespace fkdb {

// label: (C) probabilities, the same bits on every machine. map: of an image that was not skipped; crop: of at least one pixel, inside it.
// Costs grow with the cells that the crop touches, whose classes, scores and flip are validated. Sides are rounded up exactly: in
// float32, one of whole cells may become a sample more. Errors: Corruption (a touched cell; the label is undefined then).
Result<void> PoolLabelMap(const RecordView& map, const PixelBox& crop, std::span<float> label);

}  // namespace fkdb
