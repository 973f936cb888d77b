// SPDX-License-Identifier: Apache-2.0
// Crops of decoded images as a network's input, a thread's share at a time: the bits of image/, whose two passes these are.
// A crop's rows are first resized along x, into memory between the passes; then along y, and normalized.
#pragma once

#include <cstdint>

#include "cuda/number.h"
#include "format/box.h"
#include "image/resample_weights.h"

namespace fkdb {

// One crop of an image in the memory of the device.
struct ImageCrop {
  const uint8_t* pixels;  // (rows, row_bytes): of the image, or of the region of it that was decoded
  uint32_t row_bytes;
  PixelBox box;  // in that region
  uint32_t flip;
  uint64_t between;  // where its rows between the passes begin, in bytes; of its group; see PlaceCrops
};

// How they become input: (channels, height, width) each, or with the channels last.
struct CropFormat {
  uint32_t channels;  // 1 or 3
  uint32_t height, width;
  bool cubic;  // else bilinear
  bool channels_last;
  float mean[3], std[3];  // of values in 0 to 1

  FKDB_HOST_DEVICE uint64_t samples() const { return uint64_t{channels} * height * width; }  // of an input
};

// Column x of the rows [first, first + kRows) of a crop, to between (box.height, width, channels).
template <int kRows, int kChannels>
FKDB_HOST_DEVICE void ResizeColumn(const ImageCrop& crop, const CropFormat& format, const ResampleAxis& axis, uint32_t x, uint32_t first,
                                   uint8_t* between) {
  const ResampleWindow window = axis.Window(x);
  double sum = 0;
  for (uint32_t i = 0; i < window.count; ++i) sum += axis.Weight(window, i);
  int32_t sums[kRows][kChannels];
  const uint8_t* rows[kRows];
  FKDB_UNROLL
  for (int r = 0; r < kRows; ++r) {
    // Rows behind the last are the last again, and are not written.
    const uint32_t row = first + static_cast<uint32_t>(r) < crop.box.height ? first + static_cast<uint32_t>(r) : crop.box.height - 1;
    rows[r] = crop.pixels + static_cast<uint64_t>(crop.box.top + row) * crop.row_bytes + (crop.box.left + window.first) * kChannels;
    FKDB_UNROLL
    for (int c = 0; c < kChannels; ++c) sums[r][c] = ResampleAxis::kHalf;
  }
  for (uint32_t i = 0; i < window.count; ++i) {
    const int32_t weight = ResampleAxis::Rounded(axis.Weight(window, i), sum);
    FKDB_UNROLL
    for (int r = 0; r < kRows; ++r) {
      FKDB_UNROLL
      for (int c = 0; c < kChannels; ++c) sums[r][c] += weight * rows[r][i * kChannels + static_cast<uint32_t>(c)];
    }
  }
  const uint32_t to = crop.flip ? format.width - 1 - x : x;
  FKDB_UNROLL
  for (int r = 0; r < kRows; ++r) {
    if (first + static_cast<uint32_t>(r) >= crop.box.height) break;
    FKDB_UNROLL
    for (int c = 0; c < kChannels; ++c) {
      between[(static_cast<uint64_t>(first + static_cast<uint32_t>(r)) * format.width + to) * kChannels + static_cast<uint32_t>(c)] =
          ResampleAxis::Sample(sums[r][c]);
    }
  }
}

// Adds the rows [from, to) of a window, which weigh weights[0..], at column x.
template <int kChannels>
FKDB_HOST_DEVICE void AddRows(const CropFormat& format, const uint8_t* between, uint32_t from, uint32_t to, const int32_t* weights,
                              uint32_t x, int32_t* sums) {
  for (uint32_t row = from; row < to; ++row) {
    const uint8_t* samples = between + (static_cast<uint64_t>(row) * format.width + x) * kChannels;
    FKDB_UNROLL
    for (int c = 0; c < kChannels; ++c) sums[c] += weights[row - from] * samples[c];
  }
}

// The float32 operations of torchvision's to_tensor and normalize, in their order.
template <class Number, int kChannels>
FKDB_HOST_DEVICE void WriteInput(const CropFormat& format, uint32_t x, uint32_t y, const int32_t* sums, Number* out) {
  const uint64_t pixel = static_cast<uint64_t>(y) * format.width + x, pixels = static_cast<uint64_t>(format.height) * format.width;
  FKDB_UNROLL
  for (int c = 0; c < kChannels; ++c) {
    const float value = (static_cast<float>(ResampleAxis::Sample(sums[c])) / 255.0f - format.mean[c]) / format.std[c];
    const auto channel = static_cast<uint64_t>(c);
    FromFloat(value, out + (format.channels_last ? pixel * kChannels + channel : channel * pixels + pixel));
  }
}

}  // namespace fkdb
