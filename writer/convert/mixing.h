// SPDX-License-Identifier: Apache-2.0
// Mixed images, as other systems write them, into operations.
#pragma once

#include <array>

#include "format/box.h"
#include "format/crop_op.h"

namespace fkdb {

// What the partner shows: its operations follow, then the mixup or cutmix.
CropOp PartnerCrop(const PixelBox& box, bool flip);

// corners: top, left, bottom, right. An empty box mixes nothing in: the operation is then a mixup with lambda 1.
CropOp Cutmix(uint64_t partner, double lambda, const std::array<double, 4>& corners);

}  // namespace fkdb
