// SPDX-License-Identifier: Apache-2.0
#include "writer/crop_output.h"

#include <cmath>
#include <vector>

#include "format/quantize.h"

namespace fkdb {
namespace {

constexpr double kSumTolerance = 1e-3;  // float16 outputs of many classes come this far

}  // namespace

bool IsDistribution(std::span<const float> output) {
  double sum = 0;
  for (const float value : output) {
    if (!(value >= 0)) return false;
    sum += value;
  }
  return std::abs(sum - 1) <= kSumTolerance;
}

bool StoreOutput(const LabelSpec& spec, OutputKind kind, std::span<const float> output, uint32_t crop, Record* record) {
  std::vector<float> probabilities;
  std::span<const float> kept = output;
  if (kind == OutputKind::kProbabilities) {
    if (spec.kind == LabelKind::kLogits || !IsDistribution(output)) return false;
  } else {
    // For logits the softmax only finds NaN and infinity; its result is dropped.
    probabilities.resize(output.size());
    if (!Softmax(output, spec.temperature, probabilities)) return false;
    if (spec.kind != LabelKind::kLogits) kept = probabilities;
  }
  QuantizeCrop(spec, kept, std::span(record->indices).subspan(crop * spec.num_indices(), spec.num_indices()),
               std::span(record->values).subspan(crop * spec.num_values(), spec.num_values()));
  return true;
}

}  // namespace fkdb
