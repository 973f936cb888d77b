// SPDX-License-Identifier: Apache-2.0
// label_ops.h and unpack.h for the GPU. Every pointer is to memory that the current device reaches; work is put on
// `stream` and nothing waits for it, so that all of it may be captured in a CUDA graph. The same bits at every run.
//
// A label with a class beyond C makes its row's loss NaN.
//
// Errors: Cuda (a launch that failed, with the driver's words; no GPU).
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"
#include "cuda/label_kernels.h"
#include "format/label_spec.h"

namespace fkdb::gpu {

// Number is float, Half or Bf16.

// dense (rows, C): the recovered labels. tau > 0 is used for logits only.
template <class Number>
Result<void> RecoverDense(const SparseLabels& labels, int64_t rows, float tau, Number* dense, GpuStream stream);

// losses (rows): the soft cross-entropy of logits (rows, C) with the labels. Unless gradient (rows, C) is null, it gets
// gradient_scale * dloss/dlogits; it may be logits. Rows of up to kOneReadClasses classes and 768 indices are read once,
// longer ones twice; with mixed labels up to kOneReadClassesDense; with dense labels up to that, longer ones three times. Written 16 bytes at a time where
// `gradient` is aligned to 16 bytes as `logits` is. Errors also: Unsupported (gradient is logits, and over 768 indices).
template <class Number>
Result<void> SoftCrossEntropy(const SparseLabels& labels, int64_t rows, const LossArguments& arguments,
                              const Number* logits, float* losses, Number* gradient, GpuStream stream);
constexpr uint32_t kOneReadClasses = 24569, kOneReadClassesDense = 8185;

// Compact labels (format/compact.h) to out_indices (rows, num_indices) and out_values (rows, num_values): the bits that
// UnpackLabels gives on the CPU. `indices` and `values` are aligned to 4 bytes.
Result<void> UnpackLabels(const LabelSpec& spec, const std::byte* indices, const std::byte* values, int64_t rows,
                          uint32_t* out_indices, float* out_values, GpuStream stream);

// In whoever defines the two templates.
#define FKDB_INSTANTIATE_GPU_OPS(Number)                                                       \
  template Result<void> RecoverDense(const SparseLabels&, int64_t, float, Number*, GpuStream); \
  template Result<void> SoftCrossEntropy(const SparseLabels&, int64_t, const LossArguments&, const Number*, float*, Number*, GpuStream);

}  // namespace fkdb::gpu
