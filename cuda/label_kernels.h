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
  float sum;  // of y at the stored classes, of a sparse label
  // Of a sparse label, at the first of its indices that is this lane's, if there is one: fetched before they are needed.
  uint32_t own_index;
  float own_value, own_logit;

  FKDB_HOST_DEVICE float Stored(float value) const { return exponential ? expf((value - shift) * inverse_tau) : value; }
  FKDB_HOST_DEVICE float at(uint32_t k) const { return scale * (values == nullptr ? 1 : Stored(values[k])); }
  FKDB_HOST_DEVICE float own() const { return scale * own_value; }
};

// `weight` times the label of row n, on its way: ReadLabel makes it complete.
template <class Group>
FKDB_HOST_DEVICE RowLabel FetchLabel(const SparseLabels& labels, bool dense, int64_t n, float tau, float weight) {
  const int64_t k = labels.num_values;
  RowLabel label = {nullptr, k > 0 ? labels.values + n * k : nullptr, labels.num_values, false, 0, 1, weight, 0, weight, 0, 0, 0};
  if (dense) {
    label.exponential = labels.kind == LabelKind::kLogits;
    label.inverse_tau = 1 / tau;
    return label;
  }
  label.indices = labels.indices + n * labels.num_indices;
  label.count = labels.num_indices;
  const auto lane = static_cast<uint32_t>(Group::lane());
  if (lane < label.count) {
    label.own_index = label.indices[lane];
    label.own_value = label.values == nullptr ? 1 : label.values[lane];
  }
  return label;
}

// That of a dense kind still lacks its normalization, which is one pass over its C values together with other work: see
// Normalize.
template <class Group>
FKDB_HOST_DEVICE void ReadLabel(const SparseLabels& labels, RowLabel* label) {
  if (label->indices == nullptr || label->values == nullptr) return;
  typename Group::Accumulator sum = label->own_value;
  for (auto k = static_cast<uint32_t>(Group::lane() + Group::size()); k < label->count; k += static_cast<uint32_t>(Group::size())) {
    sum += label->values[k];
  }
  Group::Sum(sum);
  const bool spreads = labels.kind == LabelKind::kSmoothing || labels.kind == LabelKind::kMarginalSmoothing;
  if (spreads && labels.num_indices < labels.num_classes && sum < 1) {
    label->tail = static_cast<float>(label->scale * (1 - sum) / static_cast<float>(labels.num_classes - labels.num_indices));
    label->sum = static_cast<float>(label->scale * sum);
  } else {
    label->scale = static_cast<float>(label->scale / sum);
  }
}

// What a dense label's values, whose sum is `sum`, are multiplied by.
template <class Accumulator>
FKDB_HOST_DEVICE void Normalize(const SparseLabels& labels, Accumulator sum, RowLabel* label) {
  if (label->exponential || labels.renormalize) label->scale = static_cast<float>(label->scale / sum);
}

// y of row n to row->dense.
template <class Group, class Row>
FKDB_HOST_DEVICE void RecoverRow(const SparseLabels& labels, int64_t n, float tau, Row* row) {
  RowLabel label = FetchLabel<Group>(labels, Row::IsDense(labels), n, tau, 1);
  ReadLabel<Group>(labels, &label);
  if (Row::IsDense(labels)) {
    if (label.exponential) label.shift = row->LargestOf(label.values);
    if (label.exponential || labels.renormalize) Normalize(labels, row->SumOf(label), &label);
  }
  row->WriteLabel(label);
}

// Returns the loss of row n; the row gets gradient_scale * dloss/dz, if it wants it. A row offers, in the order in
// which they must be called: Begin(), which has its logits fetched; At(c), a logit; Largest(), which finds the largest; Z(logit);
// Weigh(label), sum_c y_c and sum_c y_c z_c of a dense label; SumExp(), sum_c exp(z_c) and sum_c z_c; WriteGradient. z is of
// (logit - largest) / T throughout: the loss does not change, and small differences of large logits keep their digits.
//
// kParts: 2 with arguments.partners, 1 without.
template <class Group, int kParts, class Row>
FKDB_HOST_DEVICE float LossRow(const SparseLabels& labels, int64_t n, const LossArguments& arguments, Row* row) {
  using Accumulator = typename Group::Accumulator;
  RowLabel parts[kParts];
  // All that memory is asked for before the first of it is waited for.
  FKDB_UNROLL
  for (int i = 0; i < kParts; ++i) {
    const int64_t from = i == 0 ? n : static_cast<int64_t>(arguments.partners[n]);
    const float weight = kParts == 1 ? 1 : i == 0 ? arguments.lambdas[n] : 1 - arguments.lambdas[n];
    parts[i] = FetchLabel<Group>(labels, Row::IsDense(labels), from, arguments.tau, weight);
  }
  row->Begin();
  FKDB_UNROLL
  for (int i = 0; i < kParts; ++i) {
    if (!Row::IsDense(labels)) parts[i].own_logit = row->At(parts[i].own_index);
    ReadLabel<Group>(labels, &parts[i]);
  }
  row->Largest();

  Accumulator label_sum = 0, dot = 0, tail = 0;  // dot: sum_c y_c z_c without the tails' share
  FKDB_UNROLL
  for (int i = 0; i < kParts; ++i) {
    RowLabel& label = parts[i];
    if (Row::IsDense(labels)) {
      if (label.exponential) label.shift = row->LargestOf(label.values);
      const auto weights = row->Weigh(label);
      Normalize(labels, weights.label, &label);
      label_sum += weights.label * label.scale;
      dot += weights.dot * label.scale;
      continue;
    }
    Accumulator part_dot = 0;
    const auto lane = static_cast<uint32_t>(Group::lane());
    if (lane < label.count) part_dot = (Accumulator{label.own()} - label.tail) * row->Z(label.own_logit);
    for (uint32_t k = lane + static_cast<uint32_t>(Group::size()); k < label.count; k += static_cast<uint32_t>(Group::size())) {
      part_dot += (Accumulator{label.at(k)} - label.tail) * row->Z(row->At(label.indices[k]));
    }
    Group::Sum(part_dot);
    label_sum += label.sum + Accumulator{label.tail} * static_cast<float>(labels.num_classes - labels.num_indices);
    dot += part_dot;
    tail += label.tail;
  }

  const auto sums = row->SumExp();
  // A tail of 0 times a sum that may be infinite would be NaN.
  if (tail > 0) dot += tail * sums.plain;
  const auto loss = static_cast<float>(label_sum * log(sums.exp) - dot);

  if (row->wants_gradient()) {
    float scale = arguments.gradient_scale * (1 / arguments.temperature);
    if (arguments.row_scales != nullptr) scale *= arguments.row_scales[n];
    // gradient = factor * exp(z) - the labels.
    row->template WriteGradient<kParts>(static_cast<float>(scale * (label_sum / sums.exp)), scale, parts);
  }
  return loss;
}

// The same where the arguments say how many parts there are.
template <class Group, class Row>
FKDB_HOST_DEVICE float LossRow(const SparseLabels& labels, int64_t n, const LossArguments& arguments, Row* row) {
  return arguments.partners == nullptr ? LossRow<Group, 1>(labels, n, arguments, row) : LossRow<Group, 2>(labels, n, arguments, row);
}

}  // namespace fkdb
