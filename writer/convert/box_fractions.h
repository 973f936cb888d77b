// SPDX-License-Identifier: Apache-2.0
// Between whole-pixel boxes and the fractions that other systems store.
#pragma once

#include <cstdint>
#include <optional>

#include "format/box.h"

namespace fkdb {

// How FKD's generator writes a box: (top / H, left / W, height / H, width / W), rounded to float32; `half`: and
// from there to float16.
FractionBox ToFractions(const PixelBox& box, uint32_t image_width, uint32_t image_height, bool half);

// The box that training code shows for these fractions (ToPixels), if these fractions are exactly how it is
// written; none if they stand for something else than whole pixels.
std::optional<PixelBox> ExactPixels(const FractionBox& box, uint32_t image_width, uint32_t image_height, bool half);

// Whether a box is one of the image's, give or take what float16 rounds.
bool IsInside(const FractionBox& box);

}  // namespace fkdb
