// SPDX-License-Identifier: Apache-2.0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "image/normalize.cc"
#define HWY_WANT_AVX3_DL
#include <hwy/foreach_target.h>
// foreach_target.h comes before the code it includes again and again.
#include <hwy/highway.h>

#include "image/normalize.h"

HWY_BEFORE_NAMESPACE();
namespace fkdb::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The same as the tables, or nearly: a quotient a / b is a * (1 / b), set right by a fused step with the
// remainder. Normalizer::Make tries all 256 samples and believes nothing. Returns how many pixels it
// did; the rest is too few for a vector.
size_t Compute(const Normalizer::Channel* channels, size_t num_channels, const uint8_t* pixels, size_t count, float* out) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<int32_t, decltype(d)> di;
  const hn::Rebind<uint8_t, decltype(d)> du;
  const auto quotient = [](auto a, auto b, auto inverse) HWY_ATTR {
    const auto q = hn::Mul(a, inverse);
    return hn::MulAdd(hn::NegMulAdd(q, b, a), inverse, q);
  };
  const auto largest = hn::Set(d, 255.0f), inverse_largest = hn::Set(d, 1 / 255.0f);
  const auto one = [&](auto samples, const Normalizer::Channel& channel) HWY_ATTR {
    const auto x = quotient(hn::ConvertTo(d, hn::PromoteTo(di, samples)), largest, inverse_largest);
    return quotient(hn::Sub(x, hn::Set(d, channel.mean)), hn::Set(d, channel.std), hn::Set(d, 1 / channel.std));
  };
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  if (num_channels == 1) {
    for (; i + lanes <= count; i += lanes) hn::StoreU(one(hn::LoadU(du, pixels + i), channels[0]), d, out + i);
    return i;
  }
  for (; i + lanes <= count; i += lanes) {
    hn::Vec<decltype(du)> r, g, b;
    hn::LoadInterleaved3(du, pixels + 3 * i, r, g, b);
    hn::StoreU(one(r, channels[0]), d, out + i);
    hn::StoreU(one(g, channels[1]), d, out + count + i);
    hn::StoreU(one(b, channels[2]), d, out + 2 * count + i);
  }
  return i;
}

}  // namespace fkdb::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <fmt/format.h>

#include <bit>
#include <cmath>

namespace fkdb {

HWY_EXPORT(Compute);

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
    Channel channel = {static_cast<float>(mean[c]), static_cast<float>(std[c]), {}};
    for (int v = 0; v < 256; ++v) {
      channel.table[static_cast<size_t>(v)] = (static_cast<float>(v) / 255.0f - channel.mean) / channel.std;
    }
    normalizer.channels_.push_back(channel);
  }
  normalizer.vectorized_ = normalizer.ComputesTheTables();
  return normalizer;
}

bool Normalizer::ComputesTheTables() const {
  std::vector<uint8_t> samples;
  for (size_t v = 0; v < 256; ++v) samples.insert(samples.end(), channels_.size(), static_cast<uint8_t>(v));
  std::vector<float> computed(samples.size());
  if (HWY_DYNAMIC_DISPATCH(Compute)(channels_.data(), channels_.size(), samples.data(), 256, computed.data()) != 256) return false;
  for (size_t c = 0; c < channels_.size(); ++c) {
    for (size_t v = 0; v < 256; ++v) {
      if (std::bit_cast<uint32_t>(computed[c * 256 + v]) != std::bit_cast<uint32_t>(channels_[c].table[v])) return false;
    }
  }
  return true;
}

void Normalizer::Run(const uint8_t* pixels, size_t count, float* out) const {
  const size_t channels = channels_.size();
  size_t done = 0;
  if (vectorized_) done = HWY_DYNAMIC_DISPATCH(Compute)(channels_.data(), channels, pixels, count, out);
  for (size_t c = 0; c < channels; ++c) {
    const auto& table = channels_[c].table;
    float* plane = out + c * count;
    for (size_t i = done; i < count; ++i) plane[i] = table[pixels[i * channels + c]];
  }
}

}  // namespace fkdb
#endif
