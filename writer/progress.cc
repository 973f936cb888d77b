// SPDX-License-Identifier: Apache-2.0
#include "writer/progress.h"

#include <algorithm>

namespace fkdb {

void LabelProgress::Take(const LabelCounters& counters) {
  crops = counters.crops;
  bad = counters.bad;
  const uint64_t taken = counters.taken, made = counters.made;  // in this order: never less than 0
  waiting = made - taken;
  double all = 0;
  for (const auto& stage : counters.nanoseconds) all += static_cast<double>(stage);
  for (int i = 0; i < kStages && all > 0; ++i) share[i] = static_cast<double>(counters.nanoseconds[i]) / all;
}

double LabelProgress::crops_per_second() const { return static_cast<double>(crops) / std::max(seconds, 1e-9); }

std::optional<double> LabelProgress::seconds_left() const {
  if (crops == 0) return std::nullopt;
  return static_cast<double>(all_crops - std::min(all_crops, crops)) / crops_per_second();
}

}  // namespace fkdb
