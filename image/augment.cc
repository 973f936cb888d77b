// SPDX-License-Identifier: Apache-2.0
#include "image/augment.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "image/color_kernels.h"

namespace fkdb {
namespace {

bool IsMix(OpKind kind) { return kind == OpKind::kMixup || kind == OpKind::kCutmix; }

// What CheckOps expects of an operation's values, or null.
const char* WrongValue(const CropOp& op) {
  const auto& v = op.values;
  const auto whole_box = [](const float* box) {
    return std::all_of(box, box + 4, [](float x) { return x >= 0 && x < 0x1p31f && x == std::trunc(x); }) && box[2] >= 1 && box[3] >= 1;
  };
  constexpr const char* kBox = "expected whole pixels: top, left >= 0, height, width >= 1";
  switch (op.kind) {
    case OpKind::kHue:
      return std::fabs(v[0]) <= 0.5f ? nullptr : "expected a shift of -0.5 to 0.5";
    case OpKind::kShearX:
    case OpKind::kShearY:
      return std::fabs(v[0]) < 90 ? nullptr : "expected degrees between -90 and 90";
    case OpKind::kPosterize:
      return v[0] >= 0 && v[0] <= 8 ? nullptr : "expected 0 to 8 bits";
    case OpKind::kBlur:
      return v[0] >= 0 && v[0] <= kMaxSigma ? nullptr : "expected a sigma of 0 to 1000";
    case OpKind::kMixup:
      return v[0] >= 0 && v[0] <= 1 ? nullptr : "expected a lambda of 0 to 1";
    case OpKind::kCutmix:
      if (!(v[0] >= 0 && v[0] <= 1)) return "expected a lambda of 0 to 1";
      return whole_box(&v[1]) ? nullptr : kBox;
    case OpKind::kErase:
      return whole_box(&v[0]) ? nullptr : kBox;
    case OpKind::kPartnerCrop:
      if (!(v[4] == 0 || v[4] == 1)) return "expected a flip of 0 or 1";
      return whole_box(&v[0]) ? nullptr : kBox;
    default:
      return nullptr;
  }
}

PixelBox BoxOf(const float* values) {
  const auto whole = [](float x) { return static_cast<uint32_t>(x); };
  return {whole(values[0]), whole(values[1]), whole(values[2]), whole(values[3])};
}

// What of `box` lies inside.
PixelBox Clipped(const PixelBox& box, uint32_t height, uint32_t width) {
  const uint32_t top = std::min(box.top, height), left = std::min(box.left, width);
  return {top, left, std::min(box.height, height - top), std::min(box.width, width - left)};
}

// How often each sample occurs, by channel. Neighbours are often alike, so that two in a row would wait for each other.
template <size_t kChannels>
std::array<std::array<uint32_t, 256>, 3> Count(const uint8_t* pixels, size_t count) {
  std::array<std::array<uint32_t, 256>, 3> even{}, odd{};
  size_t i = 0;
  for (; i + 2 <= count; i += 2, pixels += 2 * kChannels) {
    for (size_t c = 0; c < kChannels; ++c) {
      ++even[c][pixels[c]];
      ++odd[c][pixels[kChannels + c]];
    }
  }
  for (size_t c = 0; c < kChannels; ++c) {
    if (i < count) ++even[c][pixels[c]];
    for (size_t v = 0; v < 256; ++v) even[c][v] += odd[c][v];
  }
  return even;
}

}  // namespace

Result<void> CheckOps(std::span<const CropOp> ops) {
  const auto fail = [&](size_t i, ErrorCode code, std::string_view why) {
    const OpInfo* info = InfoOf(ops[i].kind);
    return Fail(code, fmt::format("operation {} of {}, {}: {}", i + 1, ops.size(),
                                  info == nullptr ? fmt::format("kind {}", static_cast<unsigned>(ops[i].kind)) : info->name, why));
  };
  bool open = false;                // between a partner-crop and its first mix
  const CropOp* mixed = nullptr;    // the last mix, whose partner's crop later ones share
  size_t opened = 0;
  for (size_t i = 0; i < ops.size(); ++i) {
    const CropOp& op = ops[i];
    if (InfoOf(op.kind) == nullptr) return fail(i, ErrorCode::kUnsupported, "not known to this version of fkdb");
    if (op.kind == OpKind::kReplay || op.kind == OpKind::kListed) {
      return fail(i, ErrorCode::kUnsupported,
                  "cannot be done here: what it did to the pixels is known to the system the labels were imported from");
    }
    if (!std::all_of(op.values.begin(), op.values.end(), [](float v) { return std::isfinite(v); })) {
      return fail(i, ErrorCode::kInvalidArgument, "a value that is not finite");
    }
    if (const char* expected = WrongValue(op)) {
      const auto values = std::span(op.values).first(InfoOf(op.kind)->values.size());
      return fail(i, ErrorCode::kInvalidArgument, fmt::format("{}, got {}", expected, fmt::join(values, " ")));
    }
    if (op.kind == OpKind::kPartnerCrop) {
      if (open) return fail(opened, ErrorCode::kInvalidArgument, "no mixup or cutmix before the next partner-crop");
      open = true;
      opened = i;
      mixed = nullptr;
    } else if (IsMix(op.kind)) {
      if (!open && mixed == nullptr) return fail(i, ErrorCode::kInvalidArgument, "no partner-crop before it says what the partner shows");
      if (mixed != nullptr && mixed->partner != op.partner) {
        return fail(i, ErrorCode::kInvalidArgument, "its partner is not that of the mix before it: it needs a partner-crop of its own");
      }
      open = false;
      mixed = &op;
    }
  }
  if (open) return fail(opened, ErrorCode::kInvalidArgument, "no mixup or cutmix behind it");
  return {};
}

Augmenter::Augmenter(uint32_t height, uint32_t width, uint32_t channels)
    : height_(height),
      width_(width),
      channels_(channels),
      samples_(size_t{height} * width * channels),
      warper_(height, width, channels) {}

Result<void> Augmenter::Apply(std::span<const CropOp> ops, const PartnerSource& partner, uint8_t* pixels) {
  FKDB_TRY(CheckOps(ops));
  uint8_t* target = pixels;
  for (size_t i = 0; i < ops.size(); ++i) {
    const CropOp& op = ops[i];
    if (op.kind == OpKind::kPartnerCrop) {
      partner_.resize(samples_);
      const auto behind = ops.subspan(i);
      const auto mix = std::find_if(behind.begin(), behind.end(), [](const CropOp& o) { return IsMix(o.kind); });
      if (!partner) {
        return Fail(ErrorCode::kInvalidArgument, fmt::format("operation {} of {}: nobody here gives partners' pixels", i + 1, ops.size()));
      }
      FKDB_TRY(partner(mix->partner, BoxOf(&op.values[0]), op.values[4] == 1, partner_.data()));
      target = partner_.data();
    } else if (op.kind == OpKind::kMixup) {
      target = pixels;
      Blend(partner_.data(), pixels, op.values[0], samples_, pixels);
    } else if (op.kind == OpKind::kCutmix) {
      target = pixels;
      const PixelBox box = Clipped(BoxOf(&op.values[1]), height_, width_);
      for (size_t y = box.top; y < box.top + box.height; ++y) {
        const size_t at = (y * width_ + box.left) * channels_;
        std::memcpy(pixels + at, partner_.data() + at, size_t{box.width} * channels_);
      }
    } else {
      Do(op, target);
    }
  }
  return {};
}

// Loops over all samples are such as compilers make vectors of; their bounds are locals, for a byte may alias a member.
void Augmenter::Do(const CropOp& op, uint8_t* pixels) {
  const size_t count = size_t{height_} * width_, samples = samples_;
  const float value = op.values[0];
  switch (op.kind) {
    case OpKind::kBrightness:
      return BlendFromValue(0, value, samples_, pixels);
    case OpKind::kContrast:
      return Contrast(value, pixels);
    case OpKind::kSaturation:
      if (channels_ == 3) BlendFromGrey(value, count, pixels);
      return;
    case OpKind::kHue:
      if (channels_ == 3) ShiftHue(static_cast<uint8_t>(static_cast<int>(static_cast<double>(value) * 255)), count, pixels);
      return;
    case OpKind::kSharpness:
      return Sharpen(value, pixels);
    case OpKind::kShearX:
      return warper_.ShearX(value, pixels);
    case OpKind::kShearY:
      return warper_.ShearY(value, pixels);
    case OpKind::kTranslateX:
      return warper_.Translate(value, 0, pixels);
    case OpKind::kTranslateY:
      return warper_.Translate(0, value, pixels);
    case OpKind::kRotate:
      return warper_.Rotate(value, pixels);
    case OpKind::kPosterize: {
      const auto mask = static_cast<uint8_t>(0xff << (8 - static_cast<int>(value)));
      for (size_t i = 0; i < samples; ++i) pixels[i] &= mask;
      return;
    }
    case OpKind::kSolarize: {  // inverted from the threshold on
      if (value > 255) return;
      const auto threshold = static_cast<uint8_t>(value <= 0 ? 0 : std::ceil(value));
      for (size_t i = 0; i < samples; ++i) pixels[i] = static_cast<uint8_t>(pixels[i] ^ (pixels[i] >= threshold ? 255 : 0));
      return;
    }
    case OpKind::kAutoContrast:
      return AutoContrast(pixels);
    case OpKind::kEqualize:
      return Equalize(pixels);
    case OpKind::kInvert:
      for (size_t i = 0; i < samples; ++i) pixels[i] ^= 255;
      return;
    case OpKind::kGrayscale:
      if (channels_ == 3) BlendFromGrey(0, count, pixels);
      return;
    case OpKind::kBlur:
      return blur_.Run(value, height_, width_, channels_, pixels);
    case OpKind::kErase: {
      const PixelBox box = Clipped(BoxOf(&op.values[0]), height_, width_);
      for (size_t y = box.top; y < box.top + box.height; ++y) {
        std::memset(pixels + (y * width_ + box.left) * channels_, 0, size_t{box.width} * channels_);
      }
      return;
    }
    case OpKind::kMixup:
    case OpKind::kCutmix:
    case OpKind::kPartnerCrop:
    case OpKind::kReplay:
    case OpKind::kListed:
      return;  // Apply's own; refused by CheckOps
  }
}

// From the rounded average of the grey image.
void Augmenter::Contrast(float factor, uint8_t* pixels) {
  const size_t count = size_t{height_} * width_;
  uint64_t sum = 0;
  if (channels_ == 3) {
    sum = SumOfGrey(pixels, count);
  } else {
    for (size_t i = 0; i < count; ++i) sum += pixels[i];
  }
  BlendFromValue(static_cast<uint8_t>(static_cast<double>(sum) / static_cast<double>(count) + 0.5), factor, samples_, pixels);
}

// From the smoothed image; the outermost pixels have no neighbours all around and stay.
void Augmenter::Sharpen(float factor, uint8_t* pixels) {
  if (height_ < 3 || width_ < 3) return;
  const size_t row = size_t{width_} * channels_, inner = row - 2 * size_t{channels_};
  copy_.resize(3 * row);  // the row above as it was, and this one; its smoothed one
  uint8_t *above = &copy_[0], *middle = &copy_[row], *smooth = &copy_[2 * row];
  std::memcpy(above, pixels, row);
  for (size_t y = 1; y + 1 < height_; ++y) {
    uint8_t* out = pixels + y * row;
    std::memcpy(middle, out, row);
    SmoothRow(above + channels_, middle + channels_, out + row + channels_, inner, channels_, smooth);
    Blend(smooth, middle + channels_, factor, inner, out + channels_);
    std::swap(above, middle);
  }
}

void Augmenter::AutoContrast(uint8_t* pixels) {
  const SampleRange range = RangeOf(pixels, size_t{height_} * width_, channels_);
  std::array<uint8_t, 3 * 256> tables;
  for (size_t c = 0; c < channels_; ++c) {
    const int low = range.low[c], high = range.high[c];
    const double scale = high > low ? 255.0 / (high - low) : 1, offset = high > low ? -low * scale : 0;
    for (int v = 0; v < 256; ++v) {
      tables[c * 256 + static_cast<size_t>(v)] = static_cast<uint8_t>(std::clamp(static_cast<int>(v * scale + offset), 0, 255));
    }
  }
  LookUp(tables.data(), pixels);
}

void Augmenter::Equalize(uint8_t* pixels) {
  const size_t count = size_t{height_} * width_;
  const auto counts = channels_ == 3 ? Count<3>(pixels, count) : Count<1>(pixels, count);
  std::array<uint8_t, 3 * 256> tables;
  for (size_t c = 0; c < channels_; ++c) {
    const auto last = std::find_if(counts[c].rbegin(), counts[c].rend(), [](uint32_t n) { return n != 0; });
    const uint64_t step = (count - *last) / 255;  // samples a level, were all levels as full as the rest
    uint64_t below = step / 2;
    for (size_t v = 0; v < 256; ++v) {
      tables[c * 256 + v] = static_cast<uint8_t>(step == 0 ? v : std::min<uint64_t>(below / step, 255));
      below += counts[c][v];
    }
  }
  LookUp(tables.data(), pixels);
}

void Augmenter::LookUp(const uint8_t* tables, uint8_t* pixels) const {
  const size_t samples = samples_;
  if (channels_ == 1) {
    for (size_t i = 0; i < samples; ++i) pixels[i] = tables[pixels[i]];
    return;
  }
  for (size_t i = 0; i < samples; i += 3) {
    const uint8_t r = tables[pixels[i]], g = tables[256 + pixels[i + 1]], b = tables[512 + pixels[i + 2]];
    pixels[i] = r;
    pixels[i + 1] = g;
    pixels[i + 2] = b;
  }
}

}  // namespace fkdb
