// SPDX-License-Identifier: Apache-2.0
#include "cuda/label_ops.h"

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

}  // namespace fkdb
