// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/gpu_crops.h"

namespace fkdb::test {

// What the kernels' threads do to a group of crops, one after another; few weights at a time.
template <int kChannels, class T>
void RunCropBodies(const CropFormat& format, const ImageCrop* crops, const gpu::CropGroup& group, uint8_t* between, T* out) {
  constexpr int kRows = 8;
  constexpr uint32_t kWeights = 5;
  for (uint32_t n = group.first; n < group.first + group.num_crops; ++n) {
    const ImageCrop& crop = crops[n];
    uint8_t* rows = between + crop.between;
    const ResampleAxis along_x(crop.box.width, format.width, format.cubic), along_y(crop.box.height, format.height, format.cubic);
    for (uint32_t first = 0; first < crop.box.height; first += kRows) {
      for (uint32_t x = 0; x < format.width; ++x) ResizeColumn<kRows, kChannels>(crop, format, along_x, x, first, rows);
    }
    for (uint32_t y = 0; y < format.height; ++y) {
      const ResampleWindow window = along_y.Window(y);
      double sum = 0;
      for (uint32_t i = 0; i < window.count; ++i) sum += along_y.Weight(window, i);
      for (uint32_t x = 0; x < format.width; ++x) {
        int32_t sums[kChannels];
        std::fill(sums, sums + kChannels, ResampleAxis::kHalf);
        for (uint32_t from = 0; from < window.count; from += kWeights) {
          const uint32_t end = std::min(window.count, from + kWeights);
          int32_t weights[kWeights];
          for (uint32_t i = from; i < end; ++i) weights[i - from] = ResampleAxis::Rounded(along_y.Weight(window, i), sum);
          AddRows<kChannels>(format, rows, window.first + from, window.first + end, weights, x, sums);
        }
        WriteInput<T, kChannels>(format, x, y, sums, out + n * format.samples());
      }
    }
  }
}

template <class T>
void RunCropBodies(const CropFormat& format, const ImageCrop* crops, const gpu::CropGroup& group, uint8_t* between, T* out) {
  if (format.channels == 1) RunCropBodies<1>(format, crops, group, between, out);
  else RunCropBodies<3>(format, crops, group, between, out);
}

}  // namespace fkdb::test
