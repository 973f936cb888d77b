// SPDX-License-Identifier: Apache-2.0
// A drawn mix done to a student's inputs and labels. Includes Torch.
#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/batch_mix.h"
#include "trainer/label_loss.h"

namespace fkdb {

struct MixedBatch {
  at::Tensor inputs;  // as they came, each mixed with another
  MixedRows rows;     // whose label is mixed with whose
};

// Of inputs (N, channels, height, width), on their device.
MixedBatch MixBatch(const BatchMix& mix, const at::Tensor& inputs);

}  // namespace fkdb
