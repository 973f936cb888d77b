// SPDX-License-Identifier: Apache-2.0
// What else was done to a crop, after crop, resize and flip: the operations in the order in which
// they were applied, each with the parameters that were drawn. Enough to make the same pixels again.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "format/result.h"

namespace fkdb {

// On disk, never change; new ones at the end. Each gives the pixels that Pillow, or torchvision on a PIL image, gives:
// format/FORMAT.md says how exactly, image/augment.h does it.
enum class OpKind : uint16_t {
  kBrightness = 0,     // factor: 0 is black, 1 changes nothing. Colour jitter is up to four of these
  kContrast = 1,       // factor: 0 is the average grey everywhere
  kSaturation = 2,     // factor: 0 is grey
  kHue = 3,            // shift, in turns of the colour circle, -0.5 to 0.5
  kSharpness = 4,      // factor: 0 is smoothed
  kShearX = 5,         // degrees, -90 to 90: what row y shows comes from y tan(degrees) further right; about the upper left corner
  kShearY = 6,         // degrees: what column x shows comes from x tan(degrees) further down
  kTranslateX = 7,     // pixels of the teacher's input, to the right; the fraction is dropped
  kTranslateY = 8,     // pixels, down
  kRotate = 9,         // degrees, counter-clockwise, about the centre
  kPosterize = 10,     // bits kept, the upper ones
  kSolarize = 11,      // threshold, 0 to 255: samples from it on are inverted
  kAutoContrast = 12,
  kEqualize = 13,
  kInvert = 14,
  kGrayscale = 15,     // keeps three channels
  kBlur = 16,          // sigma, pixels
  kErase = 17,         // box: top, left, height, width in pixels of the teacher's input; filled with 0
  kMixup = 18,         // partner, lambda: this image's share
  kCutmix = 19,        // partner, lambda: this image's share of the label, box that shows the partner
  kPartnerCrop = 20,   // box in pixels of the partner's image, flip: the operations from here to the next mixup or
                       // cutmix were done to the partner
  kReplay = 21,        // seed, its upper and lower 16 bits: what was drawn for this crop, its box and flip too, comes from
                       // this seed, by the rules of the system that the labels were imported from
  kListed = 22,        // index, applied (0 or 1), value: an operation of that system's own list
};

constexpr size_t kMaxOpValues = 5;
constexpr size_t kMaxOpsPerCrop = 64;

struct CropOp {
  OpKind kind = OpKind::kBrightness;
  uint64_t partner = 0;                   // Hash64 of the partner's key (mixup, cutmix): survives merge and subset
  std::array<float, kMaxOpValues> values{};  // in the order of OpInfo::values, the rest 0
  bool operator==(const CropOp&) const = default;
};

// How users spell an operation and its parameters.
struct OpInfo {
  std::string_view name;
  bool has_partner;
  std::vector<std::string_view> values;  // "factor", "degrees", "top", ..
};
// Null for a kind this version does not know.
const OpInfo* InfoOf(OpKind kind);

// One crop's operations as 32-bit words, op after op:
//   kind u16 | number of words that follow u16 << 16; partner (low, high) if the kind has one; values
void AppendOpWords(std::span<const CropOp> ops, std::vector<uint32_t>* words);
// Errors: Unsupported (an operation of a newer version), Corruption (words that are no operations, a
// value that is not finite, a lambda or a box that makes no sense).
Result<std::vector<CropOp>> ParseOpWords(std::span<const uint32_t> words);

}  // namespace fkdb
