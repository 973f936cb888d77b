// SPDX-License-Identifier: Apache-2.0
#include "trainer/schedule.h"

#include <cmath>
#include <numbers>

namespace fkdb {

std::vector<Pass> PlanPasses(uint32_t epochs, uint32_t crops_per_image) {
  std::vector<Pass> passes;
  for (uint32_t epoch = 0; epoch < epochs;) {
    const bool last = uint64_t{epoch} + crops_per_image >= epochs;
    passes.push_back({epoch, last ? 1 : crops_per_image});
    epoch += passes.back().crops;
  }
  return passes;
}

double CosineRate(double base, uint32_t epoch, uint32_t epochs) {
  return base / 2 * (1 + std::cos(std::numbers::pi * epoch / epochs));
}

}  // namespace fkdb
