// SPDX-License-Identifier: Apache-2.0
// Residual networks (He et al., 2016) of basic or of bottleneck blocks. Includes Torch: for trainer's own sources only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "trainer/models.h"

namespace fkdb {

struct ResNetShape {
  bool large_stem;     // 7x7 stride 2 and max pooling, or 3x3 stride 1
  bool bottleneck;     // 1x1, 3x3 and 1x1 convolutions a block, the last four times as wide; or two of 3x3
  int64_t stem_width;
  struct Stage {
    int64_t width;   // of its 3x3 convolutions
    int64_t blocks;
    int64_t stride;  // of its first block
  };
  std::vector<Stage> stages;
};

std::shared_ptr<Model> MakeResNet(const ResNetShape& shape, int64_t channels, int64_t classes);

}  // namespace fkdb
