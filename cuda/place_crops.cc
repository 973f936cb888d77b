// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cuda/gpu_crops.h"

namespace fkdb::gpu {

std::vector<CropGroup> PlaceCrops(std::span<ImageCrop> crops, const CropFormat& format, uint64_t most_bytes) {
  std::vector<CropGroup> groups;
  for (uint32_t i = 0; i < crops.size(); ++i) {
    const uint64_t bytes = uint64_t{crops[i].box.height} * format.width * format.channels;
    if (groups.empty() || groups.back().between_bytes + bytes > most_bytes) groups.push_back({i, 0, 0, 0});
    CropGroup& group = groups.back();
    crops[i].between = group.between_bytes;
    group.between_bytes += bytes;
    group.tallest = std::max(group.tallest, crops[i].box.height);
    ++group.num_crops;
  }
  return groups;
}

}  // namespace fkdb::gpu
