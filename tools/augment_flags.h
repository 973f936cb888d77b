// SPDX-License-Identifier: Apache-2.0
// The flags that say what else is done to a crop: an AugmentPolicy.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <vector>

#include "format/augment_policy.h"
#include "format/result.h"

namespace fkdb {

// Flags that were not given are empty.
struct AugmentFlags {
  std::vector<uint32_t> randaugment;        // operations, magnitude
  std::vector<double> jitter;               // brightness, contrast, saturation, hue
  std::vector<double> blur;                 // probability, low, high
  std::optional<double> jitter_probability, grayscale, erase, mixup, cutmix, mix_probability;

  void AddTo(CLI::App& app);
  bool given() const;
  // `base` with the given flags over it. Errors: InvalidArgument.
  Result<AugmentPolicy> Over(AugmentPolicy base) const;
};

}  // namespace fkdb
