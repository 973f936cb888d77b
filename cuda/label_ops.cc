// SPDX-License-Identifier: Apache-2.0
#include "cuda/label_ops.h"

#include <vector>

namespace fkdb {

SparseLabels SparseLabelsOf(const LabelSpec& spec, const uint32_t* indices, const float* values) {
  return {spec.kind,
          spec.num_classes,
          spec.num_indices(),
          spec.num_values(),
          spec.values != ValueEncoding::kF32,
          indices,
          values};
}

void RecoverDense(const SparseLabels& labels, int64_t rows, float tau, float* dense) {
  for (int64_t n = 0; n < rows; ++n) RecoverRow<OneLane>(labels, n, tau, dense + n * labels.num_classes);
}

void SoftCrossEntropy(const SparseLabels& labels, int64_t begin, int64_t end, const LossArguments& arguments,
                      const float* logits, float* losses, float* gradient) {
  for (int64_t n = begin; n < end; ++n) {
    const int64_t at = n * labels.num_classes;
    losses[n] = LossRow<OneLane>(labels, n, arguments, logits + at, gradient ? gradient + at : nullptr);
  }
}

void SoftCrossEntropyBf16(const SparseLabels& labels, int64_t begin, int64_t end, const LossArguments& arguments,
                          const uint16_t* logits, float* losses, uint16_t* gradient) {
  const size_t classes = labels.num_classes;
  std::vector<float> row(classes);
  for (int64_t n = begin; n < end; ++n) {
    const size_t at = static_cast<size_t>(n) * classes;
    RowFromBf16(logits + at, classes, row.data());
    losses[n] = LossRow<OneLane>(labels, n, arguments, row.data(), gradient ? row.data() : nullptr);
    if (gradient) RowToBf16(row.data(), classes, gradient + at);
  }
}

}  // namespace fkdb
