// SPDX-License-Identifier: Apache-2.0
// One row (one crop) at a time: its stored label back to a dense one, and the soft cross-entropy of
// a student's logits with its gradient straight from the stored label. The only source of both, for
// CPU and GPU; format/recover.h is the reference that it is tested against.
//
// Notation: C classes, K stored values p with indices; the label y is scale * p at the K and `tail`
// elsewhere (paper Eq. 3 to 7); z the student's logits, T its temperature.
//
//   loss     = -sum_c y_c log softmax(z / T)_c                                     (section 3.1)
//            = (sum y) * lse - tail * sum_c z_c / T - sum_k (scale p_k - tail) z_k / T
//   dloss/dz = ((sum y) * softmax(z / T) - y) / T
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/lane_group.h"
#include "format/label_spec.h"

namespace fkdb {

// Labels of N rows where a kernel can reach them; made by SparseLabelsOf.
struct SparseLabels {
  LabelKind kind;
  uint32_t num_classes;     // C
  uint32_t num_indices;     // K, 0 for full and logits
  uint32_t num_values;      // K; 0 for hard; C for full and logits
  bool renormalize;         // full labels whose values were rounded
  const uint32_t* indices;  // (N, num_indices)
  const float* values;      // (N, num_values)
};

// The label of one row as the rule that recovers it.
struct RowLabel {
  const uint32_t* indices;
  const float* values;
  float scale;
  float tail;
  float shift;  // logits: the largest value, subtracted before exp
};

// y at stored position k: hard labels store no value, logits become probabilities here.
FKDB_HOST_DEVICE inline float StoredValue(const SparseLabels& labels, const RowLabel& row, uint32_t k, float tau) {
  if (labels.kind == LabelKind::kHard) return 1;
  if (labels.kind == LabelKind::kLogits) return row.scale * expf((row.values[k] - row.shift) / tau);
  return row.scale * row.values[k];
}

template <class Group>
FKDB_HOST_DEVICE RowLabel LoadRow(const SparseLabels& labels, int64_t n, float tau) {
  using Accumulator = typename Group::Accumulator;
  RowLabel row = {labels.indices + n * labels.num_indices, labels.values + n * labels.num_values, 1, 0, 0};
  if (labels.kind == LabelKind::kHard) return row;
  const uint32_t first = static_cast<uint32_t>(Group::lane()), step = static_cast<uint32_t>(Group::size());
  if (labels.kind == LabelKind::kLogits) {
    float largest = -INFINITY;
    for (uint32_t c = first; c < labels.num_values; c += step) largest = fmaxf(largest, row.values[c]);
    row.shift = Group::Max(largest);
  }
  Accumulator sum = 0;
  for (uint32_t k = first; k < labels.num_values; k += step) {
    sum += labels.kind == LabelKind::kLogits ? expf((row.values[k] - row.shift) / tau) : row.values[k];
  }
  sum = Group::Sum(sum);
  const bool spreads = labels.kind == LabelKind::kSmoothing || labels.kind == LabelKind::kMarginalSmoothing;
  if (spreads && labels.num_indices < labels.num_classes && sum < 1) {
    row.tail = static_cast<float>((1 - sum) / (labels.num_classes - labels.num_indices));
  } else if (labels.kind != LabelKind::kFull || labels.renormalize) {
    row.scale = static_cast<float>(1 / sum);
  }
  return row;
}

// dense (C) of row n. A group's lanes meet nowhere between the fill and the K stores: element c and
// the stores to it are one lane's only if K is handled by the lane that owns c, so every lane walks
// the K and takes its own.
template <class Group>
FKDB_HOST_DEVICE void RecoverRow(const SparseLabels& labels, int64_t n, float tau, float* dense) {
  const RowLabel row = LoadRow<Group>(labels, n, tau);
  const uint32_t first = static_cast<uint32_t>(Group::lane()), step = static_cast<uint32_t>(Group::size());
  for (uint32_t c = first; c < labels.num_classes; c += step) {
    dense[c] = labels.num_indices > 0 ? row.tail : StoredValue(labels, row, c, tau);
  }
  for (uint32_t k = 0; k < labels.num_indices; ++k) {
    const uint32_t c = row.indices[k];
    if (c % step == first) dense[c] = StoredValue(labels, row, k, tau);
  }
}

// The label of row n as the long loops take it; labels.num_indices == 0.
template <class Group>
FKDB_HOST_DEVICE typename Group::DenseLabel DenseLabelOf(const SparseLabels& labels, int64_t n, float tau) {
  const float* values = labels.values + n * labels.num_values;
  if (labels.kind != LabelKind::kLogits) return {values, false, 0, 1};
  return {values, true, Group::LargestOf(values, labels.num_values), 1 / tau};
}

struct LossArguments {
  float temperature = 1;  // T, of the student
  float tau = 1;          // of the softmax over stored logits
  float gradient_scale = 1;
};

// Returns the loss of row n; writes gradient_scale * dloss/dz to gradient (C), unless it is null.
// gradient may be the memory of logits (C).
template <class Group>
FKDB_HOST_DEVICE float LossRow(const SparseLabels& labels, int64_t n, const LossArguments& arguments,
                               const float* logits, float* gradient) {
  using Accumulator = typename Group::Accumulator;
  const uint32_t first = static_cast<uint32_t>(Group::lane()), step = static_cast<uint32_t>(Group::size());
  const uint32_t classes = labels.num_classes;
  const float inverse_t = 1 / arguments.temperature;
  const bool dense = labels.num_indices == 0;

  // All terms are taken of z - largest: the loss does not change, and small differences of large
  // logits keep their digits.
  const float largest = Group::LargestOf(logits, classes);
  Accumulator label_sum, dot;  // sum_c y_c, and sum_c y_c z_c without the tail's share
  RowLabel row = {nullptr, nullptr, 1, 0, 0};
  typename Group::DenseLabel all = {};
  if (dense) {
    all = DenseLabelOf<Group>(labels, n, arguments.tau);
    const auto weights = Group::WeighLogits(all, logits, classes, largest, inverse_t);
    row.scale = all.exponential || labels.renormalize ? static_cast<float>(1 / weights.label) : 1;
    label_sum = weights.label * row.scale;
    dot = weights.dot * row.scale;
  } else {
    row = LoadRow<Group>(labels, n, arguments.tau);
    label_sum = Accumulator{row.tail} * (classes - labels.num_indices);
    dot = 0;
    for (uint32_t k = 0; k < labels.num_indices; ++k) {
      const float y = StoredValue(labels, row, k, arguments.tau);
      label_sum += y;
      dot += (Accumulator{y} - row.tail) * ((logits[row.indices[k]] - largest) * inverse_t);
    }
  }

  // From here on the logits may be gone: exp(z) takes their place on its way to the gradient.
  const auto sums = Group::SumExp(logits, classes, largest, inverse_t, gradient);
  // A tail of 0 times a sum that may be infinite would be NaN.
  if (row.tail > 0) dot += Accumulator{row.tail} * sums.plain;
  const auto loss = static_cast<float>(label_sum * log(sums.exp) - dot);

  if (gradient != nullptr) {
    const float scale = arguments.gradient_scale * inverse_t;
    const auto softmax_scale = static_cast<float>(label_sum / sums.exp);
    Group::ScaleAndShift(gradient, classes, scale * softmax_scale, scale * row.tail);
    if (dense) Group::SubtractLabel(all, gradient, classes, scale * row.scale);
    for (uint32_t k = 0; k < labels.num_indices; ++k) {
      const uint32_t c = row.indices[k];
      if (c % step == first) gradient[c] -= scale * (StoredValue(labels, row, k, arguments.tau) - row.tail);
    }
  }
  return loss;
}

}  // namespace fkdb
