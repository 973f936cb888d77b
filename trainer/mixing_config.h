// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fkdb {

// mixup and CutMix of the crops of a batch, anew in every step. Both: CutMix in switch_probability of the mixed batches.
struct MixingConfig {
  double mixup_alpha = 0, cutmix_alpha = 0;  // of Beta(alpha, alpha), of which the share of a crop is drawn; 0: never
  double probability = 1;                    // that a batch is mixed
  double switch_probability = 0.5;

  bool empty() const { return mixup_alpha == 0 && cutmix_alpha == 0; }
  // Can there be a CutMix?
  bool cuts() const { return cutmix_alpha > 0 && (mixup_alpha == 0 || switch_probability > 0); }
};

}  // namespace fkdb
