// SPDX-License-Identifier: Apache-2.0
// Passes over the images and their learning rates. One pass with m crops an image counts as m epochs
// and has one learning rate: the schedule is serrated (paper section 3.3).
#pragma once

#include <cstdint>
#include <vector>

namespace fkdb {

struct Pass {
  uint32_t epoch;  // epochs done before it: also how many crops of each image were used
  uint32_t crops;  // m: crops an image in this pass
};

// `epochs` in passes of m = crops_per_image. A pass that would begin at epochs - m or later is cut
// into passes of one crop, as in the original training code: 300 epochs at m = 8 end in 4 of them.
std::vector<Pass> PlanPasses(uint32_t epochs, uint32_t crops_per_image);

// Cosine from `base` to 0: base / 2 * (1 + cos(pi * epoch / epochs)).
double CosineRate(double base, uint32_t epoch, uint32_t epochs);

}  // namespace fkdb
