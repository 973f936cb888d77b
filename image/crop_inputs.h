// SPDX-License-Identifier: Apache-2.0
// Crops of an image as the input of a network: cropped, resized, mirrored, changed by the operations recorded for them, normalized.
// One function for teachers and students, so that both see the same numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "format/box.h"
#include "format/crop_op.h"
#include "format/result.h"
#include "image/augment.h"
#include "image/image.h"
#include "image/normalize.h"
#include "image/partner_images.h"
#include "image/resample.h"

namespace fkdb {

struct InputSpec {
  uint32_t height = 224;
  uint32_t width = 224;
  Interpolation interpolation = Interpolation::kBilinear;
  std::vector<double> mean;  // (channels)
  std::vector<double> std;   // (channels)
  PassOrder pass_order = PassOrder::kHorizontalFirst;
  bool operator==(const InputSpec&) const = default;
};

// Keeps its scratch memory: one object a thread.
class CropInputs {
 public:
  // Errors: InvalidArgument (mean and std: Normalizer::Make; no pixels).
  static Result<CropInputs> Make(const InputSpec& spec);

  uint32_t channels() const { return normalizer_.channels(); }
  uint32_t height() const { return resizer_.out_height(); }
  uint32_t width() const { return resizer_.out_width(); }
  size_t samples() const { return samples_; }  // of one crop: channels * height * width

  // boxes (M) inside the image, flips (M) -> out (M, channels, height, width). The image has channels().
  void Run(const Image& image, std::span<const PixelBox> boxes, std::span<const uint8_t> flips, float* out);
  // Crops that were only resized, (count, height, width, channels) -> out (count, channels, height, width).
  void Normalize(const uint8_t* pixels, size_t count, float* out) const;
  // One crop, with the operations done to it (image/augment.h) -> out (channels, height, width). partners: where the images are
  // that are mixed in. Errors: Augmenter::Apply's and PartnerImages's.
  Result<void> Run(const Image& image, const PixelBox& box, bool flip, std::span<const CropOp> ops, const PartnerImages& partners, float* out);
  // The same, not normalized: out (height, width, channels).
  Result<void> Samples(const Image& image, const PixelBox& box, bool flip, std::span<const CropOp> ops, const PartnerImages& partners, uint8_t* out);
  // One crop, not normalized: out (height, width, channels).
  void Samples(const Image& image, const PixelBox& box, bool flip, uint8_t* out) { resizer_.Run(image, box, flip, out); }

 private:
  CropInputs(const InputSpec& spec, Normalizer normalizer);

  CropResizer resizer_;
  Normalizer normalizer_;
  Augmenter augmenter_;
  size_t samples_;
  std::vector<uint8_t> pixels_;  // of one crop
  Image partner_;
};

}  // namespace fkdb
