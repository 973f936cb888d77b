// SPDX-License-Identifier: Apache-2.0
// Random resized crops: torchvision's sampling rule over a counter-based generator, so that the
// crop an image gets is a function of (seed, stream, index) alone. FORMAT.md section "Drawing" is its contract:
// a label set whose crops were drawn so can be shared without its boxes.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "format/box.h"
#include "format/result.h"

namespace fkdb {

struct CropSampling {
  std::array<double, 2> scale = {0.08, 1};         // share of the image's area, uniform
  std::array<double, 2> ratio = {3. / 4, 4. / 3};  // width / height, log-uniform
  double flip_probability = 0.5;
};

struct SampledCrop {
  PixelBox box;
  bool flip;
};

class CropSampler {
 public:
  // Errors: InvalidArgument (a range that is empty, negative or not finite).
  static Result<CropSampler> Make(const CropSampling& sampling);

  // Up to ten draws of an area and a ratio until the box fits, then the largest centred box within
  // the ratio range. `stream` names the image, `index` the crop.
  SampledCrop Sample(uint64_t seed, uint64_t stream, uint32_t index, uint32_t width, uint32_t height) const;
  // The crops from `first` on, the same bit for bit, in a tenth of the time.
  void SampleMany(uint64_t seed, uint64_t stream, uint32_t first, uint32_t width, uint32_t height,
                  std::span<SampledCrop> out) const;

 private:
  PixelBox FallBack(uint32_t width, uint32_t height) const;

  CropSampling sampling_;
  std::array<double, 2> log_ratio_;
};

}  // namespace fkdb
