// SPDX-License-Identifier: Apache-2.0
#include "image/crop_sampler.h"

#include <fmt/format.h>

#include <cmath>

#include "format/random.h"

namespace fkdb {

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
  for (int attempt = 0; attempt < 10; ++attempt) {
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
  const double in_ratio = static_cast<double>(width) / height;
  crop.box = {0, 0, height, width};
  if (in_ratio < sampling_.ratio[0]) {
    crop.box.height = static_cast<uint32_t>(std::nearbyint(width / sampling_.ratio[0]));
  } else if (in_ratio > sampling_.ratio[1]) {
    crop.box.width = static_cast<uint32_t>(std::nearbyint(height * sampling_.ratio[1]));
  }
  crop.box.height = crop.box.height < 1 ? 1 : crop.box.height > height ? height : crop.box.height;
  crop.box.width = crop.box.width < 1 ? 1 : crop.box.width > width ? width : crop.box.width;
  crop.box.top = (height - crop.box.height) / 2;
  crop.box.left = (width - crop.box.width) / 2;
  return crop;
}

}  // namespace fkdb
