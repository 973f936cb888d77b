// SPDX-License-Identifier: Apache-2.0
// MobileNetV3-Small (Howard et al., 2019) as TensorFlow's weights want it, which timm calls
// tf_mobilenetv3_small_*: SAME padding, batch norms of epsilon 1e-3. Parameters have timm's names.
// Includes Torch: for trainer's own sources only.
#pragma once

#include <cstdint>
#include <memory>

#include "trainer/models.h"

namespace fkdb {

// width: multiplies all channels but those of stem and head.
std::shared_ptr<Model> MakeMobileNetV3Small(double width, int64_t channels, int64_t classes);

}  // namespace fkdb
