// SPDX-License-Identifier: Apache-2.0
// Passes over the images and learning rates. One pass with m crops an image counts as m epochs and has one learning rate: the
// schedule is serrated (paper section 3.3), unless it follows every step.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "format/result.h"

namespace fkdb {

enum class Decay { kCosine, kLinear, kStep, kConstant };

std::string_view Name(Decay decay);                // "cosine", "linear", "step", "constant"
Result<Decay> ParseDecay(std::string_view name);

struct Pass {
  uint32_t epoch;  // epochs done before it: also how many crops of each image were used
  uint32_t crops;  // m: crops an image in this pass
};

struct Schedule {
  Decay decay = Decay::kCosine;
  double rate = 0.1;                   // before it decays
  double min_rate = 0;                 // cosine and linear decay to it
  std::vector<uint32_t> step_epochs;   // ascending: step: each of them multiplies the rate with step_factor
  double step_factor = 0.1;
  // These first epochs show one crop of an image each; the rate rises linearly from warmup_rate. The decay counts them too.
  uint32_t warmup_epochs = 0;
  double warmup_rate = 1e-5;
  bool single_crop_tail = true;        // see PlanPasses
  bool every_step = false;             // the rate changes with every step: short trainings of large m have few passes

  // Errors: InvalidArgument.
  Result<void> Check(uint32_t epochs) const;
  // After `epoch` of `epochs`, parts of one counted. Cosine: min + (rate - min) / 2 * (1 + cos(pi * epoch / epochs)).
  double Rate(double epoch, uint32_t epochs) const;
  // Of a step of a pass, of so many steps.
  double Rate(const Pass& pass, uint64_t step, uint64_t steps, uint32_t epochs) const;
};

// `epochs` in passes of m = crops_per_image, behind those of the warm-up. With a single-crop tail, a pass that would begin at
// epochs - m or later is cut into passes of one crop, as in the original training code: 300 epochs at m = 8 end in 4 of them.
// Without, only the last pass may have fewer crops.
std::vector<Pass> PlanPasses(uint32_t epochs, uint32_t crops_per_image, const Schedule& schedule = {});

}  // namespace fkdb
