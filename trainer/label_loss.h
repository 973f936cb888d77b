// SPDX-License-Identifier: Apache-2.0
// The training loss on tensors: soft cross-entropy of logits with sparse labels, without a dense label, and its gradient
// in the same pass (paper section 3.1). Includes Torch.
#pragma once

#include <ATen/core/Tensor.h>

#include "cuda/label_kernels.h"

namespace fkdb {

struct LossAndGradient {
  at::Tensor loss;      // the mean over the rows, a float32 scalar without history
  at::Tensor gradient;  // of it, as the logits: logits.backward(gradient) goes on from there
};

// Row n's label: lambdas[n] of its own and the rest of row partners[n]'s. On the device of the logits.
struct MixedRows {
  at::Tensor partners;  // (N), int32
  at::Tensor lambdas;   // (N), float32
};

// logits (N, C), contiguous: float32, float16 or bfloat16, on the CPU or a GPU, there on Torch's current stream; labels of
// N rows in that device's memory. temperature: the student's; tau: of stored logits; weight: of the gradient; mixed: may be null.
LossAndGradient LabelLoss(const at::Tensor& logits, const SparseLabels& labels, float temperature, float tau, float weight = 1,
                          const MixedRows* mixed = nullptr);

// The labels themselves (N, C), float32 on `device`: for what is no loss of this one's form.
at::Tensor DenseLabels(const SparseLabels& labels, int64_t rows, float tau, c10::Device device, const MixedRows* mixed = nullptr);

}  // namespace fkdb
