// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/box_fractions.h"

#include "format/half.h"

namespace fkdb {

FractionBox ToFractions(const PixelBox& box, uint32_t image_width, uint32_t image_height, bool half) {
  const auto share = [half](uint32_t pixels, uint32_t side) {
    const auto fraction = static_cast<float>(static_cast<double>(pixels) / side);
    return half ? FloatFromHalf(HalfFromFloat(fraction)) : fraction;
  };
  return {share(box.top, image_height), share(box.left, image_width), share(box.height, image_height), share(box.width, image_width)};
}

std::optional<PixelBox> ExactPixels(const FractionBox& box, uint32_t image_width, uint32_t image_height, bool half) {
  const PixelBox pixels = ToPixels(box, image_width, image_height);
  if (ToFractions(pixels, image_width, image_height, half) == box) return pixels;
  return std::nullopt;
}

bool IsInside(const FractionBox& box) {
  constexpr float kEnd = 1.01f;
  return box.top >= 0 && box.left >= 0 && box.height > 0 && box.width > 0 && box.top + box.height <= kEnd && box.left + box.width <= kEnd;
}

}  // namespace fkdb
