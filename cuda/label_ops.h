// SPDX-License-Identifier: Apache-2.0
// Label recovery and the training loss over batches, on the CPU; gpu_ops.h has the same for the GPU.
//
// Numbers: a NaN among a row's logits, or +infinity, makes the row's loss and gradient NaN, and no other row's. A logit
// of -infinity is probability 0: the loss is +infinity if the label gives that class any, and unchanged if not.
#pragma once

#include <cstdint>

#include "cuda/label_kernels.h"
#include "format/label_spec.h"

namespace fkdb {

// Labels of N = rows crops, as reader's LabelBatch holds them. Borrows both arrays.
// indices: (N, spec.num_indices()), values: (N, spec.num_values()).
SparseLabels SparseLabelsOf(const LabelSpec& spec, const uint32_t* indices, const float* values);

// Number is float, Half or Bf16.

// dense (rows, C): the recovered labels, each row summing to 1. tau > 0 is used for logits only.
template <class Number>
void RecoverDense(const SparseLabels& labels, int64_t rows, float tau, Number* dense);

// For rows [begin, end): losses[n] = soft cross-entropy of logits (rows, C) with label n; unless
// gradient (rows, C) is null, its rows get gradient_scale * dloss/dlogits. Computed in float32, each gradient rounded
// once. gradient may be logits. Rows are independent: callers may split them over threads.
template <class Number>
void SoftCrossEntropy(const SparseLabels& labels, int64_t begin, int64_t end, const LossArguments& arguments,
                      const Number* logits, float* losses, Number* gradient);

}  // namespace fkdb
