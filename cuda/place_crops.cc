// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cuda/gpu_crops.h"

namespace fkdb::gpu {

CropPlaces PlaceCrops(std::span<ImageCrop> crops, const CropFormat& format) {
  CropPlaces places = {0, 0};
  for (ImageCrop& crop : crops) {
    crop.between = places.between_bytes;
    places.between_bytes += uint64_t{crop.box.height} * format.width * format.channels;
    places.tallest = std::max(places.tallest, crop.box.height);
  }
  return places;
}

}  // namespace fkdb::gpu
