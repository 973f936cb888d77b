// SPDX-License-Identifier: Apache-2.0
// Includes Torch.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "format/random.h"
#include "format/result.h"
#include "trainer/label_loss.h"
#include "trainer/mixing_config.h"

namespace fkdb {

struct MixedBatch {
  at::Tensor inputs;  // as they came, each mixed with another
  MixedRows rows;     // whose label is mixed with whose
};

// Errors: InvalidArgument.
Result<void> CheckMixing(const MixingConfig& config);

// A batch's inputs (N, channels, height, width) with one share for all of them, each with the partner that a random permutation gives it.
// None: this batch is left as it is.
std::optional<MixedBatch> MixBatch(const MixingConfig& config, const at::Tensor& inputs, CounterRandom random);

}  // namespace fkdb
