// SPDX-License-Identifier: Apache-2.0
#include "writer/ensemble.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "format/quantize.h"
#include "writer/crop_output.h"

namespace fkdb {
namespace {

constexpr std::string_view kAverages[] = {"probabilities", "logits"};

bool AllFinite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

// Of crops teachers say one thing each; for label maps one of every cell, before softmax.
Result<void> CheckGrids(const Ensemble& ensemble, bool map) {
  const auto text = [](const std::optional<Grid>& grid) { return grid ? fmt::format("maps of {} x {} cells", grid->height, grid->width) : std::string("one row an input"); };
  for (const auto& member : ensemble.members) {
    const Teacher& teacher = *member.teacher;
    const auto bad = [&](const std::string& what) { return Fail(ErrorCode::kInvalidArgument, fmt::format("teacher '{}' {}", teacher.name(), what)); };
    const auto grid = teacher.grid();
    if (grid && !map) return bad(fmt::format("gives {}, not one row a crop: fkdb-write --label label-map stores them", text(grid)));
    if (!grid && map) return bad("gives one row an input, not [N, C, H, W]: label maps are of a fully convolutional teacher, one without its last pooling");
    if (grid != ensemble.grid()) return bad(fmt::format("gives {}, '{}' {}: only maps of the same cells can be averaged", text(grid), ensemble.members[0].teacher->name(), text(ensemble.grid())));
    if (map && teacher.output_kind() != OutputKind::kLogits) return bad("gives probabilities: label maps are of scores before softmax");
  }
  return {};
}

}  // namespace

std::string_view Name(Average average) { return kAverages[static_cast<size_t>(average)]; }

Result<Average> ParseAverage(std::string_view name) {
  for (const Average average : {Average::kProbabilities, Average::kLogits}) {
    if (name == Name(average)) return average;
  }
  return Fail(ErrorCode::kInvalidArgument, fmt::format("average '{}': expected {}", name, fmt::join(kAverages, " or ")));
}

std::string Ensemble::name() const {
  std::string names;
  for (const Member& member : members) names += (names.empty() ? "" : ", ") + member.teacher->name();
  return names;
}

Result<void> CheckEnsemble(const Ensemble& ensemble, const LabelSpec& spec) {
  const auto bad = [](std::string what) { return Fail(ErrorCode::kInvalidArgument, std::move(what)); };
  if (ensemble.members.empty()) return bad("no teacher");
  const Teacher& first = *ensemble.members[0].teacher;
  const bool several = ensemble.members.size() > 1;
  FKDB_TRY(CheckGrids(ensemble, spec.is_map()));
  if (several && spec.is_map() && ensemble.average != Average::kLogits) return bad("label maps are averages of scores before softmax: --average logits");
  if (several && spec.kind == LabelKind::kLogits && ensemble.average != Average::kLogits) {
    return bad("labels of kind 'logits' are averages of logits: --average logits");
  }
  for (const auto& [teacher, weight] : ensemble.members) {
    if (!(weight > 0) || !std::isfinite(weight)) return bad(fmt::format("teacher '{}': weight {}: expected a positive number", teacher->name(), weight));
    if (teacher->num_outputs() != first.num_outputs()) {
      return bad(fmt::format("teacher '{}' has {} outputs, '{}' {}: only teachers of the same classes can be averaged", teacher->name(),
                             teacher->num_outputs(), first.name(), first.num_outputs()));
    }
    if (teacher->output_kind() == OutputKind::kLogits) continue;
    if (spec.kind == LabelKind::kLogits || (several && ensemble.average == Average::kLogits)) {
      return bad(fmt::format("teacher '{}' gives probabilities: there are no logits to {}", teacher->name(), several ? "average" : "store"));
    }
    if (spec.temperature != 1) {
      return bad(fmt::format("teacher '{}' gives probabilities: a temperature of {} is for logits", teacher->name(), spec.temperature));
    }
  }
  return {};
}

EnsembleInputs::EnsembleInputs(const Ensemble& ensemble) {
  for (const auto& member : ensemble.members) {
    const auto same = std::find(specs.begin(), specs.end(), member.teacher->input());
    of_member.push_back(static_cast<size_t>(same - specs.begin()));
    if (same == specs.end()) specs.push_back(member.teacher->input());
  }
}

size_t PaddedRows(size_t n) {
  constexpr size_t kMultiple = kBatchMultiple;
  return (n + kMultiple - 1) / kMultiple * kMultiple;
}

Result<EnsembleBatch> EnsembleBatch::Make(const Ensemble& ensemble, float temperature, size_t size) {
  EnsembleBatch batch(ensemble, temperature, size);
  for (const InputSpec& spec : EnsembleInputs(ensemble).specs) {
    FKDB_ASSIGN(CropInputs make, CropInputs::Make(spec));
    const size_t samples = make.samples();
    batch.inputs_.push_back({std::move(make), std::vector<float>(PaddedRows(size) * samples)});
  }
  return batch;
}

Result<void> EnsembleBatch::Add(const Image& image, const PixelBox& box, bool flip, std::span<const CropOp> ops, const PartnerImages& partners) {
  for (Input& input : inputs_) {
    FKDB_TRY(input.make.Run(image, box, flip, ops, partners, input.batch.data() + size_ * input.make.samples()));
  }
  ++size_;
  return {};
}

Result<void> EnsembleBatch::Run() {
  std::vector<const float*> inputs;
  for (Input& input : inputs_) {
    const auto at = [&](size_t n) { return input.batch.begin() + static_cast<ptrdiff_t>(n * input.make.samples()); };
    std::fill(at(size_), at(PaddedRows(size_)), 0.0f);
    inputs.push_back(input.batch.data());
  }
  return outputs_.Run(inputs, size_);
}

EnsembleOutputs::EnsembleOutputs(const Ensemble& ensemble, float temperature)
    : ensemble_(ensemble),
      temperature_(temperature),
      rows_per_crop_(ensemble.grid().value_or(Grid()).cells()),
      input_of_(EnsembleInputs(ensemble).of_member),
      outputs_(ensemble.members.size()),
      distributions_(ensemble.members.size()),
      row_(ensemble.num_outputs()),
      sum_(ensemble.num_outputs()) {}

Result<void> EnsembleOutputs::Run(std::span<const float* const> inputs, size_t n) {
  const size_t rows = PaddedRows(n), c = ensemble_.num_outputs();
  for (size_t m = 0; m < outputs_.size(); ++m) {
    outputs_[m].resize(rows * rows_per_crop_ * c);
    FKDB_TRY(ensemble_.members[m].teacher->Forward(inputs[input_of_[m]], static_cast<int64_t>(rows), outputs_[m].data()));
    for (size_t i = 0; i < n * rows_per_crop_; ++i) distributions_[m] += IsDistribution(OutputOf(m, i));
  }
  if (outputs_.size() > 1) {
    mean_.resize(n * rows_per_crop_ * c);
    for (size_t i = 0; i < n * rows_per_crop_; ++i) AverageRow(i);
  }
  return {};
}

OutputKind EnsembleOutputs::kind() const {
  if (outputs_.size() == 1) return ensemble_.members[0].teacher->output_kind();
  return ensemble_.average == Average::kLogits ? OutputKind::kLogits : OutputKind::kProbabilities;
}

std::span<const float> EnsembleOutputs::output(size_t i) const {
  const size_t c = ensemble_.num_outputs();
  return outputs_.size() == 1 ? OutputOf(0, i) : std::span(mean_).subspan(i * c, c);
}

const Teacher& EnsembleOutputs::Culprit(size_t i) const {
  size_t m = 0;
  while (m + 1 < outputs_.size() && IsGood(m, i)) ++m;
  return *ensemble_.members[m].teacher;
}

std::span<const float> EnsembleOutputs::OutputOf(size_t m, size_t i) const {
  const size_t c = ensemble_.num_outputs();
  return std::span(outputs_[m]).subspan(i * c, c);
}

bool EnsembleOutputs::IsGood(size_t m, size_t i) const {
  const auto row = OutputOf(m, i);
  return ensemble_.members[m].teacher->output_kind() == OutputKind::kLogits ? AllFinite(row) : IsDistribution(row);
}

void EnsembleOutputs::AverageRow(size_t i) {
  const size_t c = ensemble_.num_outputs();
  const std::span<float> mean = std::span(mean_).subspan(i * c, c);
  std::fill(sum_.begin(), sum_.end(), 0.0);
  double weights = 0;
  for (size_t m = 0; m < outputs_.size(); ++m) {
    if (!IsGood(m, i)) {
      std::fill(mean.begin(), mean.end(), std::numeric_limits<float>::quiet_NaN());
      return;
    }
    auto said = OutputOf(m, i);
    if (kind() == OutputKind::kProbabilities && ensemble_.members[m].teacher->output_kind() == OutputKind::kLogits) {
      static_cast<void>(Softmax(said, temperature_, row_));  // finite
      said = row_;
    }
    const double weight = ensemble_.members[m].weight;
    weights += weight;
    for (size_t k = 0; k < c; ++k) sum_[k] += weight * said[k];
  }
  for (size_t k = 0; k < c; ++k) mean[k] = static_cast<float>(sum_[k] / weights);
}

}  // namespace fkdb
