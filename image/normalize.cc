// SPDX-License-Identifier: Apache-2.0
#include "image/normalize.h"

#include <fmt/format.h>

#include <cmath>

namespace fkdb {

Normalization DefaultNormalization(uint32_t channels) {
  if (channels == 1) return {{0.449}, {0.226}};
  return {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};
}

Result<Normalizer> Normalizer::Make(std::span<const double> mean, std::span<const double> std) {
  if (mean.size() != std.size() || (mean.size() != 1 && mean.size() != 3)) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("normalization: {} means and {} deviations, expected 1 or 3 of each", mean.size(),
                            std.size()));
  }
  Normalizer normalizer;
  for (size_t c = 0; c < mean.size(); ++c) {
    if (!std::isfinite(mean[c]) || !(std[c] > 0) || !std::isfinite(std[c])) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("normalization: mean {} and deviation {}: expected numbers, the second positive",
                              mean[c], std[c]));
    }
    const auto m = static_cast<float>(mean[c]), s = static_cast<float>(std[c]);
    auto& table = normalizer.tables_.emplace_back();
    for (int v = 0; v < 256; ++v) table[static_cast<size_t>(v)] = (static_cast<float>(v) / 255.0f - m) / s;
  }
  return normalizer;
}

void Normalizer::Run(const uint8_t* pixels, size_t count, float* out) const {
  const size_t channels = tables_.size();
  for (size_t c = 0; c < channels; ++c) {
    const auto& table = tables_[c];
    float* plane = out + c * count;
    for (size_t i = 0; i < count; ++i) plane[i] = table[pixels[i * channels + c]];
  }
}

}  // namespace fkdb
