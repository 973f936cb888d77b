// SPDX-License-Identifier: Apache-2.0
#include "format/quantize.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "format/half.h"

namespace fkdb {

bool Softmax(std::span<const float> logits, float temperature, std::span<float> probabilities) {
  float largest = -INFINITY;
  for (const float z : logits) {
    if (!std::isfinite(z)) return false;
    largest = std::max(largest, z);
  }
  double sum = 0;
  for (size_t c = 0; c < logits.size(); ++c) {
    const float e = std::exp((logits[c] - largest) / temperature);
    probabilities[c] = e;
    sum += e;
  }
  const double scale = 1 / sum;
  for (float& p : probabilities) p = static_cast<float>(p * scale);
  return true;
}

void QuantizeCrop(const LabelSpec& spec, std::span<const float> probabilities,
                  std::span<uint32_t> indices, std::span<float> values) {
  if (spec.num_indices() == 0) {
    std::copy(probabilities.begin(), probabilities.end(), values.begin());
    return;
  }
  const auto before = [&](uint32_t a, uint32_t b) {
    return probabilities[a] != probabilities[b] ? probabilities[a] > probabilities[b] : a < b;
  };
  const size_t k = indices.size();
  if (k <= 32) {  // insertion into the best k so far: one pass over C
    size_t kept = 0;
    for (uint32_t c = 0; c < probabilities.size(); ++c) {
      if (kept == k && !before(c, indices[k - 1])) continue;
      size_t at = kept < k ? kept++ : k - 1;
      for (; at > 0 && before(c, indices[at - 1]); --at) indices[at] = indices[at - 1];
      indices[at] = c;
    }
  } else {
    std::vector<uint32_t> order(probabilities.size());
    std::iota(order.begin(), order.end(), 0u);
    std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(k), order.end(), before);
    std::copy_n(order.begin(), k, indices.begin());
  }
  for (size_t i = 0; i < values.size(); ++i) values[i] = probabilities[indices[i]];
}

void RoundToHalf(const LabelSpec& spec, std::span<const float> values, std::span<uint16_t> halves) {
  for (size_t i = 0; i < values.size(); ++i) halves[i] = HalfFromFloat(values[i]);
  if (!spec.has_tail()) return;
  double exact = 0;
  for (const float v : values) exact += v;
  if (exact >= 1) return;  // the label itself leaves nothing for the other classes
  const auto stored_sum = [&] {
    double sum = 0;
    for (const uint16_t h : halves) sum += FloatFromHalf(h);
    return sum;
  };
  while (stored_sum() >= 1) {
    const uint16_t largest = *std::max_element(halves.begin(), halves.end());
    for (size_t i = halves.size(); i-- > 0;) {
      if (halves[i] != largest) continue;
      --halves[i];  // the next smaller binary16: positive halves are ordered as integers
      break;
    }
  }
}

}  // namespace fkdb
