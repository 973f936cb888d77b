// SPDX-License-Identifier: Apache-2.0
#include "trainer/fresh_crops.h"

namespace fkdb {

void FreshCrops::Resize(const StepPlan& step, const LabelSpec& spec, LabelBatch* labels) {
  const uint32_t m = step.pass.crops;
  labels->Resize(spec, step.ordinals.size(), step.ordinals.size() * m);
  for (uint32_t i = 0; i < step.ordinals.size(); ++i) {
    labels->images()[i] = {step.ordinals[i], 0, 0, i * m, m};  // its size is known when it was read
  }
}

void FreshCrops::Draw(const StepPlan& step, size_t image, uint32_t width, uint32_t height, LabelBatch* labels) const {
  labels->images()[image].width = width;
  labels->images()[image].height = height;
  // The stream is the image, the index the epoch: a crop seen once is not seen again.
  for (uint32_t i = 0; i < step.pass.crops; ++i) {
    const SampledCrop crop = sampler_.Sample(seed_, ~step.ordinals[image], step.pass.epoch + i, width, height);
    labels->boxes()[image * step.pass.crops + i] = crop.box;
    labels->flips()[image * step.pass.crops + i] = crop.flip;
  }
}

}  // namespace fkdb
