// SPDX-License-Identifier: Apache-2.0
// Random crops that no epoch repeats, for the supervisions that draw them.
#pragma once

#include <cstdint>

#include "format/crop_sampler.h"
#include "format/label_spec.h"
#include "reader/label_batch.h"
#include "trainer/supervision.h"

namespace fkdb {

// Thread-safe. A crop is a function of seed, image and epoch: the same for every kind of labels.
class FreshCrops {
 public:
  FreshCrops(const CropSampler& sampler, uint64_t seed) : sampler_(sampler), seed_(seed) {}

  // Supervision::FillLabels but for the labels.
  static void Resize(const StepPlan& step, const LabelSpec& spec, LabelBatch* labels);
  // Supervision::AddCrops.
  void Draw(const StepPlan& step, size_t image, uint32_t width, uint32_t height, LabelBatch* labels) const;

 private:
  CropSampler sampler_;
  uint64_t seed_;
};

}  // namespace fkdb
