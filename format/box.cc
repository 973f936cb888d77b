// SPDX-License-Identifier: Apache-2.0
#include "format/box.h"

#include <algorithm>
#include <cmath>

namespace fkdb {
namespace {

// One side: the edges `begin` and `begin + length` in pixels of an image side of `size`.
void RoundEdges(float begin, float length, uint32_t size, uint32_t* first, uint32_t* count) {
  const double side = size;
  const double near = std::nearbyint(static_cast<double>(begin) * side);
  const double far = std::nearbyint((static_cast<double>(begin) + length) * side);
  // fmin and fmax let no NaN through: whatever a damaged box says, the result is inside the image.
  const double low = std::fmax(std::fmin(near, side - 1), 0);
  const double high = std::fmax(std::fmin(far, side), low + 1);
  *first = static_cast<uint32_t>(low);
  *count = static_cast<uint32_t>(high - low);
}

}  // namespace

PixelBox ToPixels(const FractionBox& box, uint32_t image_width, uint32_t image_height) {
  PixelBox pixels;
  RoundEdges(box.top, box.height, image_height, &pixels.top, &pixels.height);
  RoundEdges(box.left, box.width, image_width, &pixels.left, &pixels.width);
  return pixels;
}

PixelBox Around(std::span<const PixelBox> boxes) {
  uint32_t top = UINT32_MAX, left = UINT32_MAX, bottom = 0, right = 0;
  for (const PixelBox& box : boxes) {
    top = std::min(top, box.top);
    left = std::min(left, box.left);
    bottom = std::max(bottom, box.top + box.height);
    right = std::max(right, box.left + box.width);
  }
  return {top, left, bottom - top, right - left};
}

}  // namespace fkdb
