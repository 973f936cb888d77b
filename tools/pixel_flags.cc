// SPDX-License-Identifier: Apache-2.0
#include "tools/pixel_flags.h"

#include "image/normalize.h"
#include "image/resample.h"

namespace fkdb {
void PixelFlags::AddTo(CLI::App& app) {
  const std::string group = "Pixels";
  app.add_option("--input-size", input_size, "Pixels a side of the network's input (224; IDX: the images' size)")
      ->check(CLI::Range(1, 65535))
      ->group(group);
  app.add_option("--interpolation", interpolation, "bilinear or bicubic, as Pillow computes them (bilinear)")
      ->check(CLI::IsMember({"bilinear", "bicubic"}))
      ->group(group);
  app.add_option("--resampling", resampling, "Whose order of passes: of Pillow up to 12, or of 13 (pillow-integer-horizontal-first)")
      ->check(CLI::IsMember({"pillow-integer-horizontal-first", "pillow-integer-13"}))
      ->group(group);
  app.add_option("--mean", mean, "Channel means of values in 0 to 1 (ImageNet's)")->delimiter(',')->group(group);
  app.add_option("--std", std, "Channel deviations (ImageNet's)")->delimiter(',')->group(group);
  app.add_option("--scale", scale, "LOW,HIGH: a random crop's share of the image's area (0.08,1)")
      ->delimiter(',')
      ->expected(2)
      ->group(group);
  app.add_option("--ratio", ratio, "LOW,HIGH: its width / height (0.75,1.3333)")
      ->delimiter(',')
      ->expected(2)
      ->group(group);
}

Result<AugmentationInfo> PixelFlags::Over(AugmentationInfo base) const {
  if (input_size) base.input_height = base.input_width = *input_size;
  if (interpolation) base.interpolation = *interpolation;
  if (resampling) base.resampling = *resampling;
  if (!mean.empty()) base.mean = mean;
  if (!std.empty()) base.std = std;
  if (!scale.empty()) base.scale = {scale[0], scale[1]};
  if (!ratio.empty()) base.ratio = {ratio[0], ratio[1]};
  FKDB_TRY(Normalizer::Make(base.mean, base.std));
  return base;
}

Result<AugmentationInfo> DefaultAugmentation(const DataSet& data) {
  AugmentationInfo augmentation;
  const Normalization normalization = DefaultNormalization(data.channels());
  augmentation.mean = normalization.mean;
  augmentation.std = normalization.std;
  if (data.layout() == "idx") {
    FKDB_ASSIGN(const Image image, data.Load(0));
    augmentation.input_height = image.height;
    augmentation.input_width = image.width;
  }
  return augmentation;
}

}  // namespace fkdb
