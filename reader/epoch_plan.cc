// SPDX-License-Identifier: Apache-2.0
#include "reader/epoch_plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace fkdb {
namespace {

// Streams of the counter-based generator: unlike numbers, so that no two uses share draws.
constexpr uint64_t kImageOrderStream = uint64_t{1} << 62;
constexpr uint64_t kCropStream = uint64_t{2} << 62;

uint64_t CropStream(uint64_t image, uint64_t round) {
  // One stream an image and round: mixed, since both numbers are small.
  return kCropStream ^ (image * 0x9E3779B97F4A7C15u) ^ (round * 0xC2B2AE3D27D4EB4Fu);
}

}  // namespace

Result<CropOrder> ParseCropOrder(std::string_view name) {
  if (name == "cycle") return CropOrder::kCycle;
  if (name == "visit") return CropOrder::kVisit;
  return Fail(ErrorCode::kInvalidArgument, fmt::format("crop order '{}': expected cycle or visit", name));
}

Permutation ImageOrder(uint64_t num_images, uint64_t seed, uint64_t pass) {
  return Permutation(num_images, seed, kImageOrderStream ^ pass);
}

void SelectCrops(CropOrder order, uint64_t seed, uint64_t pass, uint64_t image, uint32_t num_crops,
                 uint64_t used_before, std::span<uint32_t> crops) {
  // kCycle lays the crops out as one endless sequence of permutations; kVisit starts a new
  // permutation at each visit.
  uint64_t position = order == CropOrder::kCycle ? used_before : 0;
  for (size_t i = 0; i < crops.size();) {
    const uint64_t round = position / num_crops;
    const uint64_t stream =
        order == CropOrder::kCycle ? CropStream(image, round) : CropStream(image, ~pass) + round;
    const Permutation permutation(num_crops, seed, stream);
    const uint64_t first = position % num_crops;
    const auto count = static_cast<size_t>(std::min<uint64_t>(crops.size() - i, num_crops - first));
    permutation.Map(first, crops.subspan(i, count));
    i += count;
    position += count;
  }
}

}  // namespace fkdb
