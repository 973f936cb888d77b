// SPDX-License-Identifier: Apache-2.0
#include "image/resample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace fkdb {
namespace {

constexpr int kPrecision = 22;  // bits after the point: 32 - 8 for the sample - 2 for overshoot

double Triangle(double x) {
  x = std::fabs(x);
  return x < 1 ? 1 - x : 0;
}

// Keys' cubic with a = -1/2.
double Cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

uint8_t ToSample(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kPrecision, 0, 255)); }

template <int kChannels>
void FilterRow(const uint8_t* row, const uint32_t* first, const uint32_t* count, const int32_t* weights,
               uint32_t weight_stride, uint32_t out_width, uint8_t* out) {
  for (uint32_t x = 0; x < out_width; ++x, weights += weight_stride, out += kChannels) {
    const uint8_t* in = row + size_t{first[x]} * kChannels;
    int32_t sum[kChannels];
    for (int c = 0; c < kChannels; ++c) sum[c] = 1 << (kPrecision - 1);
    for (uint32_t i = 0; i < count[x]; ++i, in += kChannels) {
      for (int c = 0; c < kChannels; ++c) sum[c] += in[c] * weights[i];
    }
    for (int c = 0; c < kChannels; ++c) out[c] = ToSample(sum[c]);
  }
}

template <int kChannels>
void MirrorRow(uint8_t* row, uint32_t width) {
  for (uint32_t a = 0, b = width - 1; a < b; ++a, --b) {
    for (int c = 0; c < kChannels; ++c) std::swap(row[a * kChannels + c], row[b * kChannels + c]);
  }
}

}  // namespace

std::string_view Name(Interpolation interpolation) {
  return interpolation == Interpolation::kBilinear ? "bilinear" : "bicubic";
}

Result<Interpolation> ParseInterpolation(std::string_view name) {
  if (name == "bilinear") return Interpolation::kBilinear;
  if (name == "bicubic") return Interpolation::kBicubic;
  return Fail(ErrorCode::kInvalidArgument, fmt::format("interpolation '{}': expected bilinear or bicubic", name));
}

CropResizer::CropResizer(uint32_t out_height, uint32_t out_width, Interpolation interpolation)
    : out_height_(out_height), out_width_(out_width), interpolation_(interpolation) {}

void CropResizer::Kernel::Prepare(uint32_t in, uint32_t out, Interpolation interpolation) {
  if (in == in_size && first.size() == out) return;
  in_size = in;
  const auto filter = interpolation == Interpolation::kBilinear ? Triangle : Cubic;
  const double radius = interpolation == Interpolation::kBilinear ? 1 : 2;
  const double scale = static_cast<double>(in) / out;
  const double stretch = std::max(scale, 1.0);  // antialiasing: shrinking widens the filter
  const double support = radius * stretch;
  width = static_cast<uint32_t>(std::ceil(support)) * 2 + 1;
  first.resize(out);
  count.resize(out);
  weights.assign(size_t{out} * width, 0);
  std::vector<double> exact(width);
  for (uint32_t x = 0; x < out; ++x) {
    const double center = (x + 0.5) * scale;
    const double inverse = 1 / stretch;
    const auto low = static_cast<int64_t>(center - support + 0.5);
    const auto high = static_cast<int64_t>(center + support + 0.5);
    first[x] = static_cast<uint32_t>(std::max<int64_t>(low, 0));
    count[x] = static_cast<uint32_t>(std::min<int64_t>(high, in)) - first[x];
    double sum = 0;
    for (uint32_t i = 0; i < count[x]; ++i) {
      exact[i] = filter((i + first[x] - center + 0.5) * inverse);
      sum += exact[i];
    }
    for (uint32_t i = 0; i < count[x]; ++i) {
      const double w = (sum != 0 ? exact[i] / sum : exact[i]) * (1 << kPrecision);
      weights[size_t{x} * width + i] = static_cast<int32_t>(w < 0 ? w - 0.5 : w + 0.5);
    }
  }
}

void CropResizer::Run(const Image& image, const PixelBox& box, bool flip, uint8_t* out) {
  const uint32_t channels = image.channels;
  horizontal_.Prepare(box.width, out_width_, interpolation_);
  vertical_.Prepare(box.height, out_height_, interpolation_);
  const size_t out_row = size_t{out_width_} * channels;

  between_.resize(box.height * out_row);
  for (uint32_t y = 0; y < box.height; ++y) {
    const uint8_t* in = image.row(box.top + y) + size_t{box.left} * channels;
    const auto filter = channels == 1 ? FilterRow<1> : FilterRow<3>;
    uint8_t* row = between_.data() + y * out_row;
    filter(in, horizontal_.first.data(), horizontal_.count.data(), horizontal_.weights.data(), horizontal_.width,
           out_width_, row);
    // Mirroring before the vertical pass gives the same pixels as after it: it works on columns.
    if (flip) (channels == 1 ? MirrorRow<1> : MirrorRow<3>)(row, out_width_);
  }

  sums_.resize(out_row);
  for (uint32_t y = 0; y < out_height_; ++y) {
    std::fill(sums_.begin(), sums_.end(), 1 << (kPrecision - 1));
    for (uint32_t i = 0; i < vertical_.count[y]; ++i) {
      const uint8_t* row = between_.data() + (vertical_.first[y] + i) * out_row;
      const int32_t weight = vertical_.weights[size_t{y} * vertical_.width + i];
      for (size_t x = 0; x < out_row; ++x) sums_[x] += row[x] * weight;
    }
    for (size_t x = 0; x < out_row; ++x) out[y * out_row + x] = ToSample(sums_[x]);
  }
}

void ResizeAndCenterCrop(const Image& image, uint32_t resize, uint32_t crop, Interpolation interpolation,
                         uint8_t* out) {
  const bool wide = image.width >= image.height;
  const uint32_t shorter = wide ? image.height : image.width, longer = wide ? image.width : image.height;
  const auto scaled = static_cast<uint32_t>(uint64_t{resize} * longer / shorter);
  const uint32_t height = wide ? resize : scaled, width = wide ? scaled : resize;
  std::vector<uint8_t> resized(size_t{height} * width * image.channels);
  CropResizer(height, width, interpolation).Run(image, {0, 0, image.height, image.width}, false, resized.data());
  // Python's round: halves to even.
  const auto middle = [&](uint32_t size) { return static_cast<uint32_t>(std::nearbyint((size - crop) / 2.0)); };
  const uint32_t top = middle(height), left = middle(width);
  const size_t row_bytes = size_t{crop} * image.channels;
  for (uint32_t y = 0; y < crop; ++y) {
    std::memcpy(out + y * row_bytes, resized.data() + (size_t{top + y} * width + left) * image.channels, row_bytes);
  }
}

}  // namespace fkdb
