// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/mixing.h"

namespace fkdb {

CropOp PartnerCrop(const PixelBox& box, bool flip) {
  return {OpKind::kPartnerCrop, 0,
          {static_cast<float>(box.top), static_cast<float>(box.left), static_cast<float>(box.height), static_cast<float>(box.width), flip ? 1.0f : 0.0f}};
}

CropOp Cutmix(uint64_t partner, double lambda, const std::array<double, 4>& corners) {
  const auto [top, left, bottom, right] = corners;
  if (!(bottom > top && right > left)) return {OpKind::kMixup, partner, {1}};
  return {OpKind::kCutmix, partner,
          {static_cast<float>(lambda), static_cast<float>(top), static_cast<float>(left), static_cast<float>(bottom - top), static_cast<float>(right - left)}};
}

}  // namespace fkdb
