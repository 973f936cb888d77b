// SPDX-License-Identifier: Apache-2.0
// By which rules the operations of crops (crop_op.h) are drawn, beyond box and flip: part of a label set's recipe. image/augment_sampler.h
// draws them.
#pragma once

#include <array>
#include <cstdint>

namespace fkdb {

// What is 0 is off, so that {} is no augmentation at all.
struct AugmentPolicy {
  // RandAugment: so many operations, each one of 14 (one of them none) at magnitude 0 to 30, with a random sign where it has one.
  uint32_t randaugment_ops = 0;
  uint32_t randaugment_magnitude = 9;

  // Colour jitter: factors uniform in [max(0, 1 - x), 1 + x], the hue's shift in [-hue, hue], in random order.
  double brightness = 0, contrast = 0, saturation = 0, hue = 0;
  double jitter_probability = 1;

  double grayscale_probability = 0;

  double blur_probability = 0;
  std::array<double, 2> blur_sigma = {0.1, 2};  // uniform, pixels

  double erase_probability = 0;
  std::array<double, 2> erase_area = {0.02, 0.33};  // share of the crop's, uniform
  std::array<double, 2> erase_aspect = {0.3, 3.3};  // height / width, log-uniform

  // lambda is Beta(alpha, alpha). Where both are on, each crop gets one of them, equally likely.
  double mixup_alpha = 0, cutmix_alpha = 0;
  double mix_probability = 1;

  bool operator==(const AugmentPolicy&) const = default;
  bool empty() const { return !Varies() && !Mixes(); }
  // Draws operations on the crop itself; draws partners.
  bool Varies() const {
    const bool jitters = jitter_probability > 0 && (brightness > 0 || contrast > 0 || saturation > 0 || hue > 0);
    return randaugment_ops > 0 || jitters || grayscale_probability > 0 || blur_probability > 0 || erase_probability > 0;
  }
  bool Mixes() const { return mix_probability > 0 && (mixup_alpha > 0 || cutmix_alpha > 0); }
};

}  // namespace fkdb
