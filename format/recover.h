// SPDX-License-Identifier: Apache-2.0
// From a stored label back to a distribution over all C classes: the reference every faster
// recovery is tested against (paper section 3.5, Fig. 4).
//
//   full                p as stored; p / sum p if the p were rounded to f16
//   hard                1 at the index, 0 elsewhere                                       (Eq. 3)
//   smoothing           p at the index, (1 - p) / (C - 1) elsewhere                       (Eq. 4)
//   marginal-smoothing  p at the K, (1 - sum p) / (C - K) elsewhere   (Eq. 5, whose print lacks the
//                       parentheses: without them the label would not sum to 1)
//   marginal-renorm     p / sum p at the K, 0 elsewhere                                   (Eq. 7)
//   logits              softmax(z / tau)                                              (section 3.4)
//   label-map           of one cell: softmax(the score at the K, 0 elsewhere); a crop's label is pooled from
//                       the cells (format/label_map.h)
//
// Where the stored p leave no mass for the other classes (their sum is 1 or more, or K = C), the
// label is p / sum p: a recovered label is never negative and sums to 1 in every encoding.
#pragma once

#include <cstdint>
#include <span>

#include "format/label_spec.h"

namespace fkdb {

// How a sparse label's K stored values become its dense form: scale * p at the K, tail elsewhere.
struct TailRule {
  float scale;
  float tail;
};
TailRule TailOf(const LabelSpec& spec, std::span<const float> values);

// One crop. indices: (num_indices), values: (num_values), dense: (C).
// tau is used for logits only and must be positive.
void RecoverCrop(const LabelSpec& spec, std::span<const uint32_t> indices,
                 std::span<const float> values, float tau, std::span<float> dense);

}  // namespace fkdb
