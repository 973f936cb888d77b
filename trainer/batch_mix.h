// SPDX-License-Identifier: Apache-2.0
// Whose crops of a batch are mixed with whose, drawn before there is a pixel of them: a training mixes what its student sees, a
// loader what an online teacher sees. No Torch in it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "format/box.h"
#include "format/random.h"
#include "format/result.h"
#include "trainer/mixing_config.h"

namespace fkdb {

// Crop n becomes `share` of itself and the rest of crop partners[n], and so does its label.
struct BatchMix {
  std::vector<uint32_t> partners;  // a permutation of the batch's N crops
  double share;                    // of CutMix exactly 1 - the box's share of the pixels
  PixelBox box;                    // of CutMix: the pixels that show the partner; of height 0: mixup
};

// Errors: InvalidArgument.
Result<void> CheckMixing(const MixingConfig& config);

// For n crops of height x width, one share for all of them. None: this batch is left as it is.
std::optional<BatchMix> DrawBatchMix(const MixingConfig& config, size_t n, uint32_t height, uint32_t width, CounterRandom random);

// Mixes inputs (N or more, channels, height, width), in place; of rows behind the N nothing changes. A CutMix was drawn for this
// height and width; a mixup is of any.
void MixInputs(const BatchMix& mix, uint32_t channels, uint32_t height, uint32_t width, std::span<float> inputs);

}  // namespace fkdb
