// SPDX-License-Identifier: Apache-2.0
#include "tools/tensorboard_log.h"

#include <nlohmann/json.hpp>

namespace fkdb {
namespace {

constexpr uint64_t kEverySteps = 50;

}  // namespace

void TensorBoardLog::AddStep(const TrainProgress& step) {
  if (auto opened = Open(step.all_steps - 1); !opened) status_ = std::move(opened);
  loss_sum_ += step.step_loss;
  ++steps_;
  if (step.all_steps % kEverySteps != 0) return;
  Add(step.all_steps, {{"train/loss", loss_sum_ / static_cast<double>(steps_)}, {"train/lr", step.learning_rate}});
  loss_sum_ = 0;
  steps_ = 0;
}

void TensorBoardLog::AddPass(const std::string& metrics) {
  const auto line = nlohmann::json::parse(metrics);
  const auto steps = line["steps"].get<uint64_t>();
  // A resumed run may have had only this pass's evaluation to do: its steps are in an earlier file.
  if (auto opened = Open(steps); !opened) status_ = std::move(opened);
  const double seconds = line["seconds"].get<double>();
  std::vector<std::pair<std::string, double>> scalars = {{"pass/loss", line["loss"].get<double>()}, {"pass/lr", line["lr"].get<double>()}};
  if (line.contains("discriminator_loss")) scalars.emplace_back("pass/discriminator_loss", line["discriminator_loss"].get<double>());
  if (seconds > 0) scalars.emplace_back("pass/crops_per_second", line["crops"].get<double>() / seconds);
  for (const char* const name : {"top1", "top5"}) {
    if (line.contains(name)) scalars.emplace_back(std::string("val/") + name, line[name].get<double>());
  }
  Add(steps, scalars);
}

Result<void> TensorBoardLog::Open(uint64_t steps_before) {
  if (file_ || !status_) return {};
  FKDB_ASSIGN(file_, EventFile::Create(folder_, static_cast<int64_t>(steps_before)));
  return {};
}

void TensorBoardLog::Add(uint64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  if (!status_) return;
  if (auto added = file_->AddScalars(static_cast<int64_t>(step), scalars); !added) status_ = std::move(added);
}

}  // namespace fkdb
