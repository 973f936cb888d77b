// SPDX-License-Identifier: Apache-2.0
// One crop's packed top-k values (format/packed_levels.h) to probabilities, by one thread: the bits of UnpackValues.
#pragma once

#include <cstdint>

#include "cuda/number.h"
#include "format/packed_levels.h"

namespace fkdb {

// A code for each value in one word.
constexpr uint32_t kMostWordValues = 1 + (64 - kTailBits) / kRatioBits;

// word: the crop's bits from the first on. p[i * step] for i < k <= kMostWordValues. Products and sums must not be
// contracted: compile with --fmad=false.
FKDB_HOST_DEVICE inline void UnpackWord(uint64_t word, uint32_t k, bool has_tail, const double* tail_levels,
                                        const double* ratio_levels, float* p) {
  double sum = 1, weight = 1;
  if (has_tail) {
    sum += tail_levels[word & ((1u << kTailBits) - 1)];
    word >>= kTailBits;
  }
  const uint64_t ratios = word;
  for (uint32_t i = 1; i < k; ++i, word >>= kRatioBits) {
    weight *= ratio_levels[word & ((1u << kRatioBits) - 1)];
    sum += weight;
  }
  const double scale = 1 / sum;
  weight = 1;
  word = ratios;
  for (uint32_t i = 0; i < k; ++i) {
    if (i > 0) {
      weight *= ratio_levels[word & ((1u << kRatioBits) - 1)];
      word >>= kRatioBits;
    }
    const double value = weight * scale;
    p[i] = static_cast<float>(value > kSmallestPacked ? value : kSmallestPacked);
  }
}

}  // namespace fkdb
