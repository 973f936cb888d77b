// SPDX-License-Identifier: Apache-2.0
// Internal to CropSampler::SampleMany: one attempt at several crops at a time. The loops run over lanes, so
// that a compiler makes vectors of them; crop_lanes.cc is compiled once for every processor and once each
// for newer ones, and its results never differ by a bit: additions, multiplications, divisions and square
// roots of IEEE doubles; fused ones only where they give what a division gives.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fkdb {

constexpr size_t kCropLanes = 16;
constexpr uint32_t kMaxLaneSide = 1 << 20;  // pixels: what 64 random bits leave of a side is exact in doubles

// What all crops of an image share.
struct LaneRule {
  uint64_t seed, stream;
  double image_height, image_width;  // at most kMaxLaneSide
  double scale_low, scale_span;
  double log_ratio_low, log_ratio_span;  // the exponent of 2 in the ratio is below 1000
};

// What the lanes draw: attempt `attempt` of the crops `index`.
struct LaneDraws {
  uint32_t index[kCropLanes];
  double flip[kCropLanes];               // in [0, 1); of attempt 0
  double height[kCropLanes], width[kCropLanes];  // whole numbers, not yet held against the image
  double top[kCropLanes], left[kCropLanes];      // of a box that fits
  double again[kCropLanes];              // 0: top or left may be one of the rare words that are drawn again
};

using LaneFunction = void(const LaneRule& rule, uint32_t attempt, LaneDraws* draws);
LaneFunction DrawLanes, DrawLanesAvx2, DrawLanesAvx512;

}  // namespace fkdb
