// SPDX-License-Identifier: Apache-2.0
// Crop and resize with antialiasing: the pixels Pillow gives, bit for bit. Its integer two-pass
// resampling (8-bit samples between the passes) sees only the crop, as
// image.crop(box).resize(size) does, so a teacher and its students see the same bytes on every
// machine.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "format/box.h"
#include "format/result.h"
#include "image/image.h"
#include "image/resample_passes.h"

namespace fkdb {

enum class Interpolation { kBilinear, kBicubic };

std::string_view Name(Interpolation interpolation);
Result<Interpolation> ParseInterpolation(std::string_view name);  // "bilinear", "bicubic"

// Which pass comes first: a few samples differ by one, so a label set names its convention.
enum class PassOrder {
  kHorizontalFirst,  // Pillow up to 12 (12.3: but for boxes about 100 times as tall as wide)
  kAsPillow13,       // the vertical pass where height shrinks, by more than twice what width does
};

std::string_view Name(PassOrder order);  // "pillow-integer-horizontal-first", "pillow-integer-13"
Result<PassOrder> ParsePassOrder(std::string_view name);

// The kernels that bring an axis to one size. Small sizes stay prepared: the crops of small images have few of them, and to
// prepare a kernel costs as much as to use it.
class ResampleKernels {
 public:
  ResampleKernels(uint32_t out, Interpolation interpolation) : out_(out), interpolation_(interpolation) {}

  // Stays valid until the next call.
  const ResampleKernel& From(uint32_t in);

 private:
  void Prepare(uint32_t in, ResampleKernel* kernel);

  uint32_t out_;
  Interpolation interpolation_;
  std::vector<ResampleKernel> small_;  // by `in`
  ResampleKernel large_;
  std::vector<double> exact_;          // weights of one position
};

// Resizes crops to one size. Keeps its scratch memory: one object a thread.
class CropResizer {
 public:
  CropResizer(uint32_t out_height, uint32_t out_width, Interpolation interpolation,
              PassOrder order = PassOrder::kHorizontalFirst);

  // Writes the region `box` (inside the image, at least 1 x 1) resized, then mirrored left to right
  // if `flip`: out (out_height, out_width, image.channels).
  void Run(const Image& image, const PixelBox& box, bool flip, uint8_t* out);

  uint32_t out_height() const { return out_height_; }
  uint32_t out_width() const { return out_width_; }

 private:
  // Points rows_ at the box's rows, each readable kRowPadding bytes behind its end.
  void FindRows(const Image& image, const PixelBox& box);
  void RunVerticalFirst(const Image& image, const PixelBox& box, const ResampleKernel& horizontal, const ResampleKernel& vertical,
                        bool flip, uint8_t* out);

  uint32_t out_height_;
  uint32_t out_width_;
  PassOrder order_;
  ResampleKernels horizontal_, vertical_;
  PassScratch scratch_;
  std::vector<const uint8_t*> rows_;      // of the box
  std::vector<uint8_t> last_rows_;        // of an image, with room behind each
  std::vector<uint8_t> between_;          // (box rows, out_width, channels), rows padded to 64 bytes
  std::vector<uint8_t> shrunk_;           // (out_height, box width, channels), vertical pass first
};

// What an evaluation sees: the image resized so that its shorter side is `resize` (the longer one
// rounded down), then the centre `crop` x `crop`. crop <= resize.
// out (crop, crop, image.channels).
void ResizeAndCenterCrop(const Image& image, uint32_t resize, uint32_t crop, Interpolation interpolation,
                         PassOrder order, uint8_t* out);

}  // namespace fkdb
