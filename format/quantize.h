// SPDX-License-Identifier: Apache-2.0
// From a teacher's output to what a record stores (paper section 3.5), and the rounding of values.
#pragma once

#include <cstdint>
#include <span>

#include "format/label_spec.h"

namespace fkdb {

// p = softmax(z / temperature). logits and probabilities: (C), may be the same memory.
// False if a logit is NaN or infinite; the output is then undefined.
bool Softmax(std::span<const float> logits, float temperature, std::span<float> probabilities);

// Quantizes one crop (Eq. 3 to 6): keeps of `probabilities` (C; for logits the raw z) what the kind
// stores. indices: (num_indices), values: (num_values). The K are the largest, in descending
// order; equal ones in ascending order of their class.
void QuantizeCrop(const LabelSpec& spec, std::span<const float> probabilities,
                  std::span<uint32_t> indices, std::span<float> values);

// Rounds one crop's values to binary16: to nearest, but where classes outside the K share a
// positive mass 1 - sum in the exact values, the last of the largest is stepped down until the
// stored sum leaves a positive mass too. Descending stays descending. (num_values) each.
void RoundToHalf(const LabelSpec& spec, std::span<const float> values, std::span<uint16_t> halves);

}  // namespace fkdb
