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
//
// A mixed label (mixup, CutMix) is lambda y + (1 - lambda) y' of two rows: both are linear in y, so it is
// two labels, each with its share in scale and tail, and never a dense one.
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

struct LossArguments {
  float temperature = 1;  // T, of the student
  float tau = 1;          // of the softmax over stored logits
  float gradient_scale = 1;
  const float* row_scales = nullptr;   // (N): further factors of the rows' gradients; null: 1
  const uint32_t* partners = nullptr;  // (N): row n's label is mixed with that of row partners[n]; null: no mixing
  const float* lambdas = nullptr;      // (N): the share of its own label, 0 to 1
};

// The label of one row: y = scale * Stored at the stored classes, tail elsewhere.
struct RowLabel {
  const uint32_t* indices;  // (count); null: all classes in their order
  const float* values;      // (count); null: each is 1
  uint32_t count;
  bool exponential;  // stored logits: exp((value - shift) / tau)
  float shift, inverse_tau;
  float scale, tail;

  FKDB_HOST_DEVICE float Stored(float value) const { return exponential ? expf((value - shift) * inverse_tau) : value; }
  FKDB_HOST_DEVICE float at(uint32_t k) const { return scale * (values == nullptr ? 1 : Stored(values[k])); }
};

// Of how many rows' labels one is mixed, at most.
constexpr int kMostParts = 2;

// `weight` times the label of row n. That of a dense kind still lacks its normalization, which is one pass over its
// C values together with other work: see Normalize.
template <class Group>
FKDB_HOST_DEVICE RowLabel LoadLabel(const SparseLabels& labels, bool dense, int64_t n, float tau, float weight) {
  const int64_t k = labels.num_values;
  RowLabel label = {nullptr, k > 0 ? labels.values + n * k : nullptr, labels.num_values, false, 0, 1, weight, 0};
  if (dense) {
    label.exponential = labels.kind == LabelKind::kLogits;
    label.inverse_tau = 1 / tau;
    return label;
  }
  label.indices = labels.indices + n * labels.num_indices;
  label.count = labels.num_indices;
  if (label.values == nullptr) return label;
  typename Group::Accumulator sum = 0;
  for (uint32_t i = static_cast<uint32_t>(Group::lane()); i < label.count; i += static_cast<uint32_t>(Group::size())) {
    sum += label.values[i];
  }
  Group::Sum(sum);
  const bool spreads = labels.kind == LabelKind::kSmoothing || labels.kind == LabelKind::kMarginalSmoothing;
  if (spreads && labels.num_indices < labels.num_classes && sum < 1) {
    label.tail = static_cast<float>(weight * (1 - sum) / static_cast<float>(labels.num_classes - labels.num_indices));
  } else {
    label.scale = static_cast<float>(weight / sum);
  }
  return label;
}

// What a dense label's values, whose sum is `sum`, are multiplied by.
template <class Accumulator>
FKDB_HOST_DEVICE void Normalize(const SparseLabels& labels, Accumulator sum, RowLabel* label) {
  if (label->exponential || labels.renormalize) label->scale = static_cast<float>(label->scale / sum);
}

// y of row n to row->dense.
template <class Group, class Row>
FKDB_HOST_DEVICE void RecoverRow(const SparseLabels& labels, int64_t n, float tau, Row* row) {
  RowLabel label = LoadLabel<Group>(labels, Row::IsDense(labels), n, tau, 1);
  if (Row::IsDense(labels)) {
    if (label.exponential) label.shift = row->LargestOf(label.values);
    if (label.exponential || labels.renormalize) Normalize(labels, row->SumOf(label), &label);
  }
  row->WriteLabel(label);
}

// Returns the loss of row n; the row gets gradient_scale * dloss/dz, if it wants it. A row offers, in the order in
// which they must be called: Largest() of its logits; At(c), logit c; Weigh(label), sum_c y_c and sum_c y_c z_c of a
// dense label; SumExp(), sum_c exp(z_c) and sum_c z_c; WriteGradient. z is of (logit - largest) / T throughout: the
// loss does not change, and small differences of large logits keep their digits.
template <class Group, class Row>
FKDB_HOST_DEVICE float LossRow(const SparseLabels& labels, int64_t n, const LossArguments& arguments, Row* row) {
  using Accumulator = typename Group::Accumulator;
  const float inverse_t = 1 / arguments.temperature;
  const float largest = row->Largest();

  RowLabel parts[kMostParts];
  const int num_parts = arguments.partners == nullptr ? 1 : 2;
  Accumulator label_sum = 0, dot = 0, tail = 0;  // dot: sum_c y_c z_c without the tails' share
  FKDB_UNROLL
  for (int i = 0; i < kMostParts; ++i) {
    if (i == num_parts) break;
    const int64_t from = i == 0 ? n : static_cast<int64_t>(arguments.partners[n]);
    const float weight = num_parts == 1 ? 1 : i == 0 ? arguments.lambdas[n] : 1 - arguments.lambdas[n];
    RowLabel& label = parts[i];
    label = LoadLabel<Group>(labels, Row::IsDense(labels), from, arguments.tau, weight);
    if (Row::IsDense(labels)) {
      if (label.exponential) label.shift = row->LargestOf(label.values);
      const auto weights = row->Weigh(label);
      Normalize(labels, weights.label, &label);
      label_sum += weights.label * label.scale;
      dot += weights.dot * label.scale;
      continue;
    }
    Accumulator stored = 0, part_dot = 0;
    for (uint32_t k = static_cast<uint32_t>(Group::lane()); k < label.count; k += static_cast<uint32_t>(Group::size())) {
      const float y = label.at(k);
      stored += y;
      part_dot += (Accumulator{y} - label.tail) * ((row->At(label.indices[k]) - largest) * inverse_t);
    }
    Group::Sum(stored, part_dot);
    label_sum += stored + Accumulator{label.tail} * static_cast<float>(labels.num_classes - labels.num_indices);
    dot += part_dot;
    tail += label.tail;
  }

  const auto sums = row->SumExp();
  // A tail of 0 times a sum that may be infinite would be NaN.
  if (tail > 0) dot += tail * sums.plain;
  const auto loss = static_cast<float>(label_sum * log(sums.exp) - dot);

  if (row->wants_gradient()) {
    float scale = arguments.gradient_scale * inverse_t;
    if (arguments.row_scales != nullptr) scale *= arguments.row_scales[n];
    // gradient = factor * exp(z) - the labels.
    row->WriteGradient(static_cast<float>(scale * (label_sum / sums.exp)), scale, parts, num_parts);
  }
  return loss;
}

}  // namespace fkdb
