// SPDX-License-Identifier: Apache-2.0
#include "image/resample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace fkdb {

std::string_view Name(Interpolation interpolation) {
  return interpolation == Interpolation::kBilinear ? "bilinear" : "bicubic";
}

Result<Interpolation> ParseInterpolation(std::string_view name) {
  if (name == "bilinear") return Interpolation::kBilinear;
  if (name == "bicubic") return Interpolation::kBicubic;
  return Fail(ErrorCode::kInvalidArgument, fmt::format("interpolation '{}': expected bilinear or bicubic", name));
}

std::string_view Name(PassOrder order) {
  return order == PassOrder::kHorizontalFirst ? "pillow-integer-horizontal-first" : "pillow-integer-13";
}

Result<PassOrder> ParsePassOrder(std::string_view name) {
  for (const PassOrder order : {PassOrder::kHorizontalFirst, PassOrder::kAsPillow13}) {
    if (name == Name(order)) return order;
  }
  return Fail(ErrorCode::kUnsupported, fmt::format("resampling '{}': expected {} or {}", name, Name(PassOrder::kHorizontalFirst),
                                                   Name(PassOrder::kAsPillow13)));
}

CropResizer::CropResizer(uint32_t out_height, uint32_t out_width, Interpolation interpolation, PassOrder order)
    : out_height_(out_height), out_width_(out_width), order_(order), horizontal_(out_width, interpolation), vertical_(out_height, interpolation) {}

namespace {

constexpr uint32_t kSmall = 64;  // CIFAR's and MNIST's images, and Tiny ImageNet's

size_t Padded(size_t row_bytes) { return (row_bytes + 63) / 64 * 64; }

}  // namespace

const ResampleKernel& ResampleKernels::From(uint32_t in) {
  if (in <= kSmall && small_.size() <= in) small_.resize(in + 1);
  ResampleKernel& kernel = in <= kSmall ? small_[in] : large_;
  if (kernel.in != in) Prepare(in, &kernel);
  return kernel;
}

void ResampleKernels::Prepare(uint32_t in, ResampleKernel* kernel) {
  kernel->in = in;
  kernel->out = out_;
  const ResampleAxis axis(in, out_, interpolation_ == Interpolation::kBicubic);
  kernel->taps = (static_cast<uint32_t>(std::ceil(axis.support())) * 2 + 1 + 3) / 4 * 4;
  kernel->first.resize(out_);
  kernel->count.resize(out_);
  kernel->weights.assign(size_t{out_} * kernel->taps, 0);
  exact_.resize(kernel->taps);
  for (uint32_t x = 0; x < out_; ++x) {
    const ResampleWindow window = axis.Window(x);
    double sum = 0;
    for (uint32_t i = 0; i < window.count; ++i) sum += exact_[i] = axis.Weight(window, i);
    for (uint32_t i = 0; i < window.count; ++i) kernel->weights[size_t{x} * kernel->taps + i] = ResampleAxis::Rounded(exact_[i], sum);
    kernel->first[x] = window.first;
    kernel->count[x] = window.count;
  }
}

void CropResizer::FindRows(const Image& image, const PixelBox& box) {
  const size_t image_row = size_t{image.width} * image.channels, left = size_t{box.left} * image.channels;
  // The image's last rows have too little behind them to be read in vectors.
  const uint8_t* end = image.pixels.data() + image.pixels.size();
  const size_t copied_row = image_row + kRowPadding;
  last_rows_.resize((kRowPadding / image_row + 1) * copied_row);
  uint8_t* copy = last_rows_.data();
  rows_.clear();
  for (uint32_t y = box.top; y < box.top + box.height; ++y) {
    const uint8_t* row = image.row(y);
    if (static_cast<size_t>(end - row) < copied_row) {
      row = static_cast<const uint8_t*>(std::memcpy(copy, row, image_row));
      copy += copied_row;
    }
    rows_.push_back(row + left);
  }
}

void CropResizer::Run(const Image& image, const PixelBox& box, bool flip, uint8_t* out) {
  const ResampleKernel& horizontal = horizontal_.From(box.width);
  const ResampleKernel& vertical = vertical_.From(box.height);
  FindRows(image, box);
  if (order_ == PassOrder::kAsPillow13 && box.height > out_height_ &&
      int64_t{box.height} - out_height_ > 2 * (int64_t{box.width} - out_width_)) {
    return RunVerticalFirst(image, box, horizontal, vertical, flip, out);
  }
  const size_t out_row = size_t{out_width_} * image.channels, stride = Padded(out_row);
  // Mirroring before the vertical pass gives the same pixels as after it: it works on columns.
  between_.resize(box.height * stride);
  HorizontalPass(horizontal, image.channels, flip, rows_.data(), box.height, between_.data(), stride, &scratch_);
  VerticalPass(vertical, between_.data(), stride, out_row, out, &scratch_);
}

void CropResizer::RunVerticalFirst(const Image& image, const PixelBox& box, const ResampleKernel& horizontal,
                                   const ResampleKernel& vertical, bool flip, uint8_t* out) {
  const size_t row_bytes = size_t{box.width} * image.channels, stride = Padded(row_bytes);
  between_.resize(box.height * stride);
  for (uint32_t y = 0; y < box.height; ++y) std::memcpy(between_.data() + y * stride, rows_[y], row_bytes);
  shrunk_.resize(out_height_ * row_bytes + kRowPadding);
  VerticalPass(vertical, between_.data(), stride, row_bytes, shrunk_.data(), &scratch_);

  rows_.clear();
  for (uint32_t y = 0; y < out_height_; ++y) rows_.push_back(shrunk_.data() + y * row_bytes);
  const size_t out_row = size_t{out_width_} * image.channels, out_stride = Padded(out_row);
  between_.resize(out_height_ * out_stride);
  HorizontalPass(horizontal, image.channels, flip, rows_.data(), out_height_, between_.data(), out_stride, &scratch_);
  for (uint32_t y = 0; y < out_height_; ++y) std::memcpy(out + y * out_row, between_.data() + y * out_stride, out_row);
}

void ResizeAndCenterCrop(const Image& image, uint32_t resize, uint32_t crop, Interpolation interpolation,
                         PassOrder order, uint8_t* out) {
  const bool wide = image.width >= image.height;
  const uint32_t shorter = wide ? image.height : image.width, longer = wide ? image.width : image.height;
  const auto scaled = static_cast<uint32_t>(uint64_t{resize} * longer / shorter);
  const uint32_t height = wide ? resize : scaled, width = wide ? scaled : resize;
  std::vector<uint8_t> resized(size_t{height} * width * image.channels);
  CropResizer(height, width, interpolation, order).Run(image, {0, 0, image.height, image.width}, false, resized.data());
  // Python's round: halves to even.
  const auto middle = [&](uint32_t size) { return static_cast<uint32_t>(std::nearbyint((size - crop) / 2.0)); };
  const uint32_t top = middle(height), left = middle(width);
  const size_t row_bytes = size_t{crop} * image.channels;
  for (uint32_t y = 0; y < crop; ++y) {
    std::memcpy(out + y * row_bytes, resized.data() + (size_t{top + y} * width + left) * image.channels, row_bytes);
  }
}

}  // namespace fkdb
