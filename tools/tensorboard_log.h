// SPDX-License-Identifier: Apache-2.0
// fkdb-train --tensorboard: what a training reports, as an event file in its folder. A file begins with the first report.
//   train/loss, train/lr                                             mean of every 50 steps
//   pass/loss, pass/lr, pass/crops_per_second; val/top1, val/top5    at the end of a pass
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "format/result.h"
#include "trainer/event_file.h"
#include "trainer/train.h"

namespace fkdb {

class TensorBoardLog {
 public:
  explicit TensorBoardLog(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // After each step, and after each pass with its line of metrics.jsonl. A failure ends the log, not the training: Finish says it.
  void AddStep(const TrainProgress& step);
  void AddPass(const std::string& metrics);
  Result<void> Finish() const { return status_; }

 private:
  void Add(uint64_t step, const std::vector<std::pair<std::string, double>>& scalars);
  Result<void> Open(uint64_t steps_before);

  const std::filesystem::path folder_;
  std::optional<EventFile> file_;
  Result<void> status_;
  double loss_sum_ = 0;  // since the last event
  uint64_t steps_ = 0;
};

}  // namespace fkdb
