// SPDX-License-Identifier: Apache-2.0
// The region of an image that a crop shows, before it is resized and flipped.
#pragma once

#include <cstdint>
#include <span>

namespace fkdb {

// Whole pixels of the original image; row 0 is the top.
struct PixelBox {
  uint32_t top = 0;
  uint32_t left = 0;
  uint32_t height = 0;
  uint32_t width = 0;
  bool operator==(const PixelBox&) const = default;
};

// Fractions of the image's height (top, height) and width (left, width), as FKD's own files hold
// them: for imports whose boxes are not whole pixels.
struct FractionBox {
  float top = 0;
  float left = 0;
  float height = 0;
  float width = 0;
  bool operator==(const FractionBox&) const = default;
};

// The pixels that a fraction box shows: its four EDGES rounded to whole pixels, halves to even, as
// the original training code does; kept inside the image and at least one pixel a side.
PixelBox ToPixels(const FractionBox& box, uint32_t image_width, uint32_t image_height);

// The smallest box around all of these, of which there is at least one.
PixelBox Around(std::span<const PixelBox> boxes);

}  // namespace fkdb
