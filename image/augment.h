// SPDX-License-Identifier: Apache-2.0
// Does a crop's recorded operations (format/crop_op.h) to its pixels, after crop, resize and flip: the same bytes
// for teacher and students on every machine. Each operation gives what Pillow gives, bit for bit, or
// torchvision on a PIL image; its parameters are the float32 numbers that were recorded.
//
//   brightness, contrast, saturation, sharpness   ImageEnhance's Brightness, Contrast, Color, Sharpness
//   auto-contrast, equalize, posterize, solarize, invert   ImageOps' functions of these names
//   grayscale          convert("L"), in all three channels
//   hue                torchvision's adjust_hue: through convert("HSV"), the hue's byte moved by int(255 shift) modulo 256
//   rotate             Image.rotate: nearest neighbour, filled with 0
//   shear, translate   torchvision's RandAugment: nearest neighbour, filled with 0, shears about the upper left corner
//   blur               ImageFilter.GaussianBlur(sigma)
//   erase              a box filled with 0
//   mixup, cutmix      Image.blend(partner, image, lambda); the partner's pixels pasted where the box is
//
// Grey pixels are Pillow's mode "L". Saturation, hue and grayscale change nothing there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "format/box.h"
#include "format/crop_op.h"
#include "format/result.h"
#include "image/blur.h"
#include "image/warp.h"

namespace fkdb {

// Writes the partner's crop, the image whose key has the hash `partner`: `box` of it, resized and mirrored if `flip`, as
// CropInputs::Samples does: out (height, width, channels). `box` comes from a file: whoever knows the image checks it.
using PartnerSource = std::function<Result<void>(uint64_t partner, const PixelBox& box, bool flip, uint8_t* out)>;

// Keeps its scratch memory: one object a thread.
class Augmenter {
 public:
  // height, width >= 1; channels 3 (RGB) or 1 (grey).
  Augmenter(uint32_t height, uint32_t width, uint32_t channels);

  // pixels (height, width, channels) in place. Operations between a partner-crop and the next mixup or cutmix are done to the
  // partner; later ones of the same partner mix in the same pixels. `partner` may be empty where no operation needs one.
  // Errors: those of CheckOps, before anything is changed; those of `partner`.
  Result<void> Apply(std::span<const CropOp> ops, const PartnerSource& partner, uint8_t* pixels);

  uint32_t height() const { return height_; }
  uint32_t width() const { return width_; }
  uint32_t channels() const { return channels_; }
  size_t samples() const { return samples_; }  // height * width * channels

 private:
  void Do(const CropOp& op, uint8_t* pixels);
  void Contrast(float factor, uint8_t* pixels);
  void Sharpen(float factor, uint8_t* pixels);
  void AutoContrast(uint8_t* pixels);
  void Equalize(uint8_t* pixels);
  void LookUp(const uint8_t* tables, uint8_t* pixels) const;  // tables (channels, 256)

  uint32_t height_, width_, channels_;
  size_t samples_;
  Warper warper_;
  GaussianBlur blur_;
  std::vector<uint8_t> copy_;     // of the pixels
  std::vector<uint8_t> partner_;  // its crop
};

// Whether Apply can do these, but for what the partner's source says.
// Errors: Unsupported (replay, listed: what they did to the pixels is another system's knowledge, not ours), InvalidArgument (a
// parameter that makes no sense; a partner-crop without a mixup or cutmix behind it, or these without one before them).
Result<void> CheckOps(std::span<const CropOp> ops);

}  // namespace fkdb
