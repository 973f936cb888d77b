// SPDX-License-Identifier: Apache-2.0
// Label recovery and the training loss over batches, on the CPU.
#pragma once

#include <cstdint>
#include <span>

#include "cuda/label_kernels.h"
#include "format/label_spec.h"

namespace fkdb {

// Labels of N = rows crops, as reader's LabelBatch holds them. Borrows both arrays.
// indices: (N, spec.num_indices()), values: (N, spec.num_values()).
SparseLabels SparseLabelsOf(const LabelSpec& spec, const uint32_t* indices, const float* values);

// dense (rows, C): the recovered labels, each row summing to 1. tau > 0 is used for logits only.
void RecoverDense(const SparseLabels& labels, int64_t rows, float tau, float* dense);

// For rows [begin, end): losses[n] = soft cross-entropy of logits (rows, C) with label n; unless
// gradient (rows, C) is null, its rows get gradient_scale * dloss/dlogits. Rows are independent:
// callers may split them over threads. A NaN among a row's logits makes its loss and gradient NaN.
void SoftCrossEntropy(const SparseLabels& labels, int64_t begin, int64_t end, const LossArguments& arguments,
                      const float* logits, float* losses, float* gradient);

// The same with bfloat16 logits and gradient, as their 16 bits: computed in float32, each gradient rounded once.
void SoftCrossEntropyBf16(const SparseLabels& labels, int64_t begin, int64_t end, const LossArguments& arguments,
                          const uint16_t* logits, float* losses, uint16_t* gradient);

// Exact, and rounded to nearest even.
void RowFromBf16(const uint16_t* in, size_t count, float* out);
void RowToBf16(const float* in, size_t count, uint16_t* out);

}  // namespace fkdb
