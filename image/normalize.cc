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

// A vector of normalized samples, stored as the format wants.
template <class D>
HWY_INLINE void StoreOne(D d, hn::Vec<D> x, float* out) { hn::StoreU(x, d, out); }
template <class D>
HWY_INLINE void StoreThree(D d, hn::Vec<D> r, hn::Vec<D> g, hn::Vec<D> b, float* out) {
  hn::StoreInterleaved3(r, g, b, d, out);
}

// Rounded to nearest even; no sample is NaN.
template <class D>
HWY_INLINE auto Bf16Of([[maybe_unused]] D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> half;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
  return hn::DemoteTo(half, hn::BitCast(hn::RebindToSigned<decltype(du)>(), rounded));
}
template <class D>
HWY_INLINE void StoreOne([[maybe_unused]] D d, hn::Vec<D> x, uint16_t* out) {
  hn::StoreU(Bf16Of(d, x), hn::Rebind<uint16_t, D>(), out);
}
template <class D>
HWY_INLINE void StoreThree([[maybe_unused]] D d, hn::Vec<D> r, hn::Vec<D> g, hn::Vec<D> b, uint16_t* out) {
  hn::StoreInterleaved3(Bf16Of(d, r), Bf16Of(d, g), Bf16Of(d, b), hn::Rebind<uint16_t, D>(), out);
}

// The same as the tables, or nearly: a quotient a / b is a * (1 / b), set right by a fused step with the
// remainder. Normalizer::Make tries all 256 samples and believes nothing. Returns how many pixels it
// did; the rest is too few for a vector.
template <class Sample>
size_t ComputeAs(const Normalizer::Channel* channels, size_t num_channels, const uint8_t* pixels, size_t count,
                 bool channels_last, Sample* out) {
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
    for (; i + lanes <= count; i += lanes) StoreOne(d, one(hn::LoadU(du, pixels + i), channels[0]), out + i);
    return i;
  }
  for (; i + lanes <= count; i += lanes) {
    hn::Vec<decltype(du)> r, g, b;
    hn::LoadInterleaved3(du, pixels + 3 * i, r, g, b);
    if (channels_last) {
      StoreThree(d, one(r, channels[0]), one(g, channels[1]), one(b, channels[2]), out + 3 * i);
    } else {
      StoreOne(d, one(r, channels[0]), out + i);
      StoreOne(d, one(g, channels[1]), out + count + i);
      StoreOne(d, one(b, channels[2]), out + 2 * count + i);
    }
  }
  return i;
}

size_t Compute(const Normalizer::Channel* channels, size_t num_channels, const uint8_t* pixels, size_t count,
               TensorFormat format, void* out) {
  if (format.type == SampleType::kBf16) {
    return ComputeAs(channels, num_channels, pixels, count, format.channels_last, static_cast<uint16_t*>(out));
  }
  return ComputeAs(channels, num_channels, pixels, count, format.channels_last, static_cast<float*>(out));
}

// Interleaved RGB to three planes; returns how many pixels it did.
size_t Separate(const uint8_t* pixels, size_t count, uint8_t* out) {
  const hn::ScalableTag<uint8_t> d;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    hn::Vec<decltype(d)> r, g, b;
    hn::LoadInterleaved3(d, pixels + 3 * i, r, g, b);
    hn::StoreU(r, d, out + i);
    hn::StoreU(g, d, out + count + i);
    hn::StoreU(b, d, out + 2 * count + i);
  }
  return i;
}

}  // namespace fkdb::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "format/half.h"

namespace fkdb {

HWY_EXPORT(Compute);
HWY_EXPORT(Separate);

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
  if (HWY_DYNAMIC_DISPATCH(Compute)(channels_.data(), channels_.size(), samples.data(), 256, {}, computed.data()) != 256) return false;
  for (size_t c = 0; c < channels_.size(); ++c) {
    for (size_t v = 0; v < 256; ++v) {
      if (std::bit_cast<uint32_t>(computed[c * 256 + v]) != std::bit_cast<uint32_t>(channels_[c].table[v])) return false;
    }
  }
  return true;
}

void Normalizer::Run(const uint8_t* pixels, size_t count, TensorFormat format, void* out) const {
  const size_t channels = channels_.size();
  if (format.type == SampleType::kUint8 && (format.channels_last || channels == 1)) {
    std::memcpy(out, pixels, count * channels);
    return;
  }
  size_t done = 0;
  if (format.type == SampleType::kUint8) {
    done = HWY_DYNAMIC_DISPATCH(Separate)(pixels, count, static_cast<uint8_t*>(out));
  } else if (vectorized_) {
    done = HWY_DYNAMIC_DISPATCH(Compute)(channels_.data(), channels, pixels, count, format, out);
  }
  for (size_t c = 0; c < channels; ++c) {
    for (size_t i = done; i < count; ++i) {
      const size_t at = format.channels_last ? i * channels + c : c * count + i;
      const uint8_t sample = pixels[i * channels + c];
      switch (format.type) {
        case SampleType::kFloat32:
          static_cast<float*>(out)[at] = channels_[c].table[sample];
          break;
        case SampleType::kBf16:
          static_cast<uint16_t*>(out)[at] = Bf16FromFloat(channels_[c].table[sample]);
          break;
        case SampleType::kUint8:
          static_cast<uint8_t*>(out)[at] = sample;
          break;
      }
    }
  }
}

}  // namespace fkdb
#endif
