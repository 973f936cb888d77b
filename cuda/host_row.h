// SPDX-License-Identifier: Apache-2.0
// A row of logits on the CPU: the long loops of label_kernels.h in the processor's vectors, of whatever width.
#pragma once

#include <cstdint>

#include "cuda/label_kernels.h"

namespace fkdb {

class HostRow {
 public:
  // gradient: (classes), null, or logits. Dense labels go to `gradient`, too.
  HostRow(const float* logits, float* gradient, uint32_t classes, float temperature)
      : logits_(logits), gradient_(gradient), classes_(classes), inverse_t_(1 / temperature) {}

  static bool IsDense(const SparseLabels& labels) { return labels.num_indices == 0; }

  float LargestOf(const float* row) const { return LargestOf(row, classes_); }
  double SumOf(const RowLabel& label) const;
  void WriteLabel(const RowLabel& label);

  void Begin() {}
  float At(uint32_t c) const { return logits_[c]; }
  void Largest() { largest_ = LargestOf(logits_); }
  float Z(float logit) const { return (logit - largest_) * inverse_t_; }
  struct Weights {
    double label, dot;
  };
  Weights Weigh(const RowLabel& label) const { return Weigh(label, logits_, classes_, largest_, inverse_t_); }
  struct Sums {
    double exp, plain;
  };
  // exp(z) takes the place of the logits, on its way to the gradient.
  Sums SumExp() { return SumExp(logits_, classes_, largest_, inverse_t_, gradient_); }
  bool wants_gradient() const { return gradient_ != nullptr; }
  template <int kParts>
  void WriteGradient(float factor, float scale, const RowLabel* parts) {
    WriteGradient(factor, scale, parts, kParts);
  }

  // The loops themselves. The largest of `count` numbers.
  static float LargestOf(const float* row, uint32_t count);
  // With z = (row - largest) * inverse_t: the sums of exp(z) and of z; exp(z) itself goes to `exps`
  // unless that is null. `exps` may be `row`. A NaN in the row makes both sums NaN.
  static Sums SumExp(const float* row, uint32_t count, float largest, float inverse_t, float* exps);

 private:
  void WriteGradient(float factor, float scale, const RowLabel* parts, int num_parts);
  // Without the label's scale.
  static Weights Weigh(const RowLabel& label, const float* row, uint32_t count, float largest, float inverse_t);
  // row = row * factor - term.
  static void ScaleAndShift(float* row, uint32_t count, float factor, float term);
  // row = row - factor * y.
  static void SubtractLabel(const RowLabel& label, float* row, uint32_t count, float factor);

  const float* logits_;
  float* gradient_;
  uint32_t classes_;
  float inverse_t_;
  float largest_ = 0;
};

// Exact, and rounded to nearest even.
void RowFromHalf(const uint16_t* in, size_t count, float* out);
void RowToHalf(const float* in, size_t count, uint16_t* out);
void RowFromBf16(const uint16_t* in, size_t count, float* out);
void RowToBf16(const float* in, size_t count, uint16_t* out);

}  // namespace fkdb
