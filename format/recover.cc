// SPDX-License-Identifier: Apache-2.0
#include "format/recover.h"

#include <algorithm>

#include "format/quantize.h"

namespace fkdb {

TailRule TailOf(const LabelSpec& spec, std::span<const float> values) {
  if (spec.kind == LabelKind::kHard) return {1, 0};
  if (spec.kind == LabelKind::kFull && spec.values == ValueEncoding::kF32) return {1, 0};
  double sum = 0;
  for (const float p : values) sum += p;
  if (spec.has_tail() && sum < 1) {
    return {1, static_cast<float>((1 - sum) / (spec.num_classes - spec.top_k))};
  }
  return {static_cast<float>(1 / sum), 0};
}

void RecoverCrop(const LabelSpec& spec, std::span<const uint32_t> indices,
                 std::span<const float> values, float tau, std::span<float> dense) {
  if (spec.kind == LabelKind::kLogits) {
    Softmax(values, tau, dense);
    return;
  }
  if (spec.is_map()) {
    std::fill(dense.begin(), dense.end(), 0.0f);
    for (size_t i = 0; i < indices.size(); ++i) dense[indices[i]] = values[i];
    Softmax(dense, 1, dense);
    return;
  }
  const TailRule rule = TailOf(spec, values);
  if (spec.kind == LabelKind::kFull) {
    for (size_t c = 0; c < dense.size(); ++c) dense[c] = rule.scale * values[c];
    return;
  }
  std::fill(dense.begin(), dense.end(), rule.tail);
  for (size_t i = 0; i < indices.size(); ++i) {
    dense[indices[i]] = spec.kind == LabelKind::kHard ? 1.0f : rule.scale * values[i];
  }
}

}  // namespace fkdb
