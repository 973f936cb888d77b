// SPDX-License-Identifier: Apache-2.0
#include "format/crop_sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "format/crop_lanes.h"
#include "format/random.h"

namespace fkdb {
namespace {

constexpr int kAttempts = 10;

LaneFunction* BestLanes() {
#ifdef FKDB_CROP_LANES_X86
  const bool fma = __builtin_cpu_supports("fma");
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) return DrawLanesAvx512;
  if (fma && __builtin_cpu_supports("avx2")) return DrawLanesAvx2;
#endif
  return DrawLanes;
}

}  // namespace

Result<CropSampler> CropSampler::Make(const CropSampling& sampling) {
  const auto range = [](const std::array<double, 2>& r) {
    return r[0] > 0 && r[0] <= r[1] && std::isfinite(r[1]);
  };
  if (!range(sampling.scale) || !range(sampling.ratio)) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("crop scale {},{} and ratio {},{}: expected LOW,HIGH with 0 < LOW <= HIGH",
                            sampling.scale[0], sampling.scale[1], sampling.ratio[0], sampling.ratio[1]));
  }
  if (!(sampling.flip_probability >= 0 && sampling.flip_probability <= 1)) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("flip probability {}: expected 0 to 1", sampling.flip_probability));
  }
  CropSampler sampler;
  sampler.sampling_ = sampling;
  sampler.log_ratio_ = {PortableLog(sampling.ratio[0]), PortableLog(sampling.ratio[1])};
  return sampler;
}

SampledCrop CropSampler::Sample(uint64_t seed, uint64_t stream, uint32_t index, uint32_t width,
                                uint32_t height) const {
  CounterRandom random(seed, stream, index);
  SampledCrop crop;
  crop.flip = random.NextUniform(0, 1) < sampling_.flip_probability;
  const double area = static_cast<double>(width) * height;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const double target = area * random.NextUniform(sampling_.scale[0], sampling_.scale[1]);
    const double ratio = PortableExp(random.NextUniform(log_ratio_[0], log_ratio_[1]));
    const double w = std::nearbyint(std::sqrt(target * ratio));
    const double h = std::nearbyint(std::sqrt(target / ratio));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    crop.box.width = static_cast<uint32_t>(w);
    crop.box.height = static_cast<uint32_t>(h);
    crop.box.top = static_cast<uint32_t>(random.NextBelow(height - crop.box.height + uint64_t{1}));
    crop.box.left = static_cast<uint32_t>(random.NextBelow(width - crop.box.width + uint64_t{1}));
    return crop;
  }
  crop.box = FallBack(width, height);
  return crop;
}

PixelBox CropSampler::FallBack(uint32_t width, uint32_t height) const {
  const double in_ratio = static_cast<double>(width) / height;
  PixelBox box = {0, 0, height, width};
  if (in_ratio < sampling_.ratio[0]) {
    box.height = static_cast<uint32_t>(std::nearbyint(width / sampling_.ratio[0]));
  } else if (in_ratio > sampling_.ratio[1]) {
    box.width = static_cast<uint32_t>(std::nearbyint(height * sampling_.ratio[1]));
  }
  box.height = box.height < 1 ? 1 : box.height > height ? height : box.height;
  box.width = box.width < 1 ? 1 : box.width > width ? width : box.width;
  box.top = (height - box.height) / 2;
  box.left = (width - box.width) / 2;
  return box;
}

void CropSampler::SampleMany(uint64_t seed, uint64_t stream, uint32_t first, uint32_t width, uint32_t height,
                             std::span<SampledCrop> out) const {
  static LaneFunction* const draw_lanes = BestLanes();
  const auto alone = [&](size_t at) { return Sample(seed, stream, first + static_cast<uint32_t>(at), width, height); };
  if (std::max(width, height) > kMaxLaneSide || std::max(std::abs(log_ratio_[0]), std::abs(log_ratio_[1])) > 600) {
    for (size_t i = 0; i < out.size(); ++i) out[i] = alone(i);
    return;
  }
  const LaneRule rule = {seed, stream, static_cast<double>(height), static_cast<double>(width), sampling_.scale[0], sampling_.scale[1] - sampling_.scale[0],
                         log_ratio_[0], log_ratio_[1] - log_ratio_[0]};
  constexpr size_t kTogether = 256;
  uint32_t waiting[kTogether];  // positions in `out` whose attempts failed so far
  for (size_t begin = 0; begin < out.size(); begin += kTogether) {
    size_t count = std::min(kTogether, out.size() - begin);
    for (size_t i = 0; i < count; ++i) waiting[i] = static_cast<uint32_t>(begin + i);
    for (uint32_t attempt = 0; attempt < kAttempts && count > 0; ++attempt) {
      size_t failed = 0;
      for (size_t at = 0; at < count; at += kCropLanes) {
        const size_t lanes = std::min(kCropLanes, count - at);
        LaneDraws draws;
        for (size_t i = 0; i < kCropLanes; ++i) draws.index[i] = first + waiting[at + (i < lanes ? i : 0)];
        draw_lanes(rule, attempt, &draws);
        for (size_t i = 0; i < lanes; ++i) {
          const uint32_t place = waiting[at + i];
          SampledCrop& crop = out[place];
          if (attempt == 0) crop.flip = draws.flip[i] < sampling_.flip_probability;
          const double w = draws.width[i], h = draws.height[i];
          if (w < 1 || h < 1 || w > width || h > height) {
            waiting[failed++] = place;
            continue;
          }
          crop.box.width = static_cast<uint32_t>(w);
          crop.box.height = static_cast<uint32_t>(h);
          crop.box.top = static_cast<uint32_t>(draws.top[i]);
          crop.box.left = static_cast<uint32_t>(draws.left[i]);
          if (draws.again[i] == 0) crop = alone(place);
        }
      }
      count = failed;
    }
    for (size_t i = 0; i < count; ++i) out[waiting[i]].box = FallBack(width, height);
  }
}

}  // namespace fkdb
