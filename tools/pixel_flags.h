// SPDX-License-Identifier: Apache-2.0
// The flags that say how an image becomes a network's input: the same for labelling and training.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "db/manifest.h"
#include "format/result.h"
#include "image/data_set.h"

namespace fkdb {

// Flags that were not given are empty.
struct PixelFlags {
  std::optional<uint32_t> input_size;
  std::optional<std::string> interpolation, resampling;
  std::vector<double> mean, std;
  std::vector<double> scale, ratio;

  void AddTo(CLI::App& app);
  // `base` with the given flags over it.
  Result<AugmentationInfo> Over(AugmentationInfo base) const;
};

// What holds without flags: 224 pixels, bilinear, ImageNet's normalization; for IDX images their own
// size. Errors: those of loading the first image.
Result<AugmentationInfo> DefaultAugmentation(const DataSet& data);

}  // namespace fkdb
