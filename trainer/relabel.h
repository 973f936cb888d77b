// SPDX-License-Identifier: Apache-2.0
// Training from label maps (ReLabel, Yun et al. 2021; FKD paper Fig. 5): fresh random crops, each labelled by what the map of its image says of it.
#pragma once

#include <cstdint>
#include <memory>

#include "format/crop_sampler.h"
#include "format/result.h"
#include "image/data_set.h"
#include "reader/reader.h"
#include "trainer/fresh_crops.h"
#include "trainer/supervision.h"

namespace fkdb {

// The crops of HardSupervision for the same seed and sampling; labels are all C probabilities (PoolLabelMap). Borrows `maps`, which must match
// the data set (CheckMatch). images: only of those that it has; null: of all. Errors: InvalidArgument (no label maps; the sampling), Mismatch (no image).
Result<std::unique_ptr<Supervision>> RelabelSupervision(const Reader& maps, const CropSampling& sampling, uint64_t seed, const DataSet* images = nullptr);

// Of the labels that maps give: all C probabilities.
LabelSpec PooledSpec(const Reader& maps);

// Draws the crops of a step's image, of the size that it had when it was labelled, and pools their labels. `labels`: of PooledSpec.
// Errors: NotFound (skipped, too), Corruption.
Result<void> AddPooledCrops(const Reader& maps, const FreshCrops& crops, const StepPlan& step, size_t image, LabelBatch* labels);

}  // namespace fkdb
