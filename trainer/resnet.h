// SPDX-License-Identifier: Apache-2.0
// Residual networks of basic blocks (He et al., 2016). Includes Torch.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "trainer/models.h"

namespace fkdb {

struct ResNetShape {
  bool large_stem;     // 7x7 stride 2 and max pooling, or 3x3 stride 1
  int64_t stem_width;
  struct Stage {
    int64_t width;
    int64_t blocks;
    int64_t stride;  // of its first block
  };
  std::vector<Stage> stages;
};

std::shared_ptr<Model> MakeResNet(const ResNetShape& shape, int64_t channels, int64_t classes);

}  // namespace fkdb
