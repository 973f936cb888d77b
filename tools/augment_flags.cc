// SPDX-License-Identifier: Apache-2.0
#include "tools/augment_flags.h"

namespace fkdb {

void AugmentFlags::AddTo(CLI::App& app) {
  const auto list = [&](const char* name, auto* values, const char* help, int least, int most) {
    app.add_option(name, *values, help)->delimiter(',')->expected(least, most)->allow_extra_args(false)->group("Augmentation");
  };
  const auto number = [&](const char* name, std::optional<double>* value, const char* help) {
    app.add_option(name, *value, help)->group("Augmentation");
  };
  list("--randaugment", &randaugment, "N,MAGNITUDE: so many of RandAugment's 14 operations a crop, magnitude 0 to 30", 2, 2);
  list("--color-jitter", &jitter, "BRIGHTNESS,CONTRAST,SATURATION[,HUE]: factors of 1 +- so much, and the hue's shift of up to 0.5", 3, 4);
  number("--jitter-probability", &jitter_probability, "Of the colour jitter (1)");
  number("--grayscale", &grayscale, "Probability that a crop loses its colours");
  list("--blur", &blur, "PROBABILITY[,LOW,HIGH]: Gaussian blur of a sigma between (0.1,2 pixels)", 1, 3);
  number("--random-erasing", &erase, "Probability that a box of a crop is erased");
  number("--mixup", &mixup, "ALPHA: another image is blended into each crop by a share that is Beta(ALPHA, ALPHA)");
  number("--cutmix", &cutmix, "ALPHA: a box of each crop shows another image; with --mixup: one of the two");
  number("--mix-probability", &mix_probability, "Of --mixup and --cutmix (1)");
}

bool AugmentFlags::given() const {
  return !randaugment.empty() || !jitter.empty() || !blur.empty() || jitter_probability || grayscale || erase || mixup || cutmix || mix_probability;
}

Result<AugmentPolicy> AugmentFlags::Over(AugmentPolicy p) const {
  if (blur.size() == 2) return Fail(ErrorCode::kInvalidArgument, "--blur: expected PROBABILITY or PROBABILITY,LOW,HIGH");
  if (randaugment.size() == 2) {
    p.randaugment_ops = randaugment[0];
    p.randaugment_magnitude = randaugment[1];
  }
  if (jitter.size() >= 3) {
    p.brightness = jitter[0];
    p.contrast = jitter[1];
    p.saturation = jitter[2];
    p.hue = jitter.size() > 3 ? jitter[3] : 0;
  }
  if (!blur.empty()) p.blur_probability = blur[0];
  if (blur.size() == 3) p.blur_sigma = {blur[1], blur[2]};
  p.jitter_probability = jitter_probability.value_or(p.jitter_probability);
  p.grayscale_probability = grayscale.value_or(p.grayscale_probability);
  p.erase_probability = erase.value_or(p.erase_probability);
  p.mixup_alpha = mixup.value_or(p.mixup_alpha);
  p.cutmix_alpha = cutmix.value_or(p.cutmix_alpha);
  p.mix_probability = mix_probability.value_or(p.mix_probability);
  return p;
}

}  // namespace fkdb
