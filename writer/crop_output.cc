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
  const bool before_softmax = spec.kind == LabelKind::kLogits || spec.is_map();
  std::vector<float> probabilities;
  std::span<const float> kept = output;
  if (kind == OutputKind::kProbabilities) {
    if (before_softmax || !IsDistribution(output)) return false;
  } else {
    // Where logits are kept the softmax only finds NaN and infinity; its result is dropped.
    probabilities.resize(output.size());
    if (!Softmax(output, spec.temperature, probabilities)) return false;
    if (!before_softmax) kept = probabilities;
  }
  QuantizeCrop(spec, kept, std::span(record->indices).subspan(crop * spec.num_indices(), spec.num_indices()),
               std::span(record->values).subspan(crop * spec.num_values(), spec.num_values()));
  return true;
}

}  // namespace fkdb
