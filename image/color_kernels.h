// SPDX-License-Identifier: Apache-2.0
// What augmentation does to 8-bit samples, for several instruction sets; every one gives the same bits, which
// are Pillow's: float32 products and sums that are never fused, integers elsewhere. For augment.cc.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace fkdb {

// from + share * (to - from), clamped and cut to a whole number: the line through two images on which
// brightness, contrast, saturation, sharpness and mixup all lie. `out` may be `from` or `to`.
void Blend(const uint8_t* from, const uint8_t* to, float share, size_t samples, uint8_t* out);
// The same from one value, in place.
void BlendFromValue(uint8_t from, float share, size_t samples, uint8_t* to);

// Of `count` RGB pixels.
void BlendFromGrey(float share, size_t count, uint8_t* pixels);    // from each pixel's own grey; share 0: grey
uint64_t SumOfGrey(const uint8_t* pixels, size_t count);
void ShiftHue(uint8_t shift, size_t count, uint8_t* pixels);       // in 256ths of the circle, by way of 8-bit HSV

// The smallest and the largest sample of each channel; channels 3 or 1.
struct SampleRange {
  std::array<uint8_t, 3> low, high;
};
SampleRange RangeOf(const uint8_t* pixels, size_t count, uint32_t channels);

// A row's samples averaged with their eight neighbours, the middle one counting five times. The three rows
// are readable `channels` samples before `middle` and behind its end.
void SmoothRow(const uint8_t* above, const uint8_t* middle, const uint8_t* below, size_t samples, uint32_t channels, uint8_t* out);

}  // namespace fkdb
