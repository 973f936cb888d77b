// SPDX-License-Identifier: Apache-2.0
// The training loss as a Torch operation: soft cross-entropy of logits with sparse labels, without a
// dense label, its gradient computed in the same pass (paper section 3.1). Includes Torch.
#pragma once

#include <ATen/core/Tensor.h>

#include "cuda/label_ops.h"

namespace fkdb {

// logits (N, C), float32 or bfloat16, on the CPU or the device of the student; labels of N rows in host
// memory. Returns the mean loss of the N rows, a float32 scalar to call backward on. temperature: the
// student's; tau: of stored logits.
at::Tensor LabelLoss(const at::Tensor& logits, const SparseLabels& labels, float temperature, float tau);

}  // namespace fkdb
