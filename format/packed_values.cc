// SPDX-License-Identifier: Apache-2.0
// Values in 5 to 8 bits. A label's K probabilities are stored as what their ratios are, so that
// they make a distribution whatever was rounded: p_k = w_k / Z with w_1 = 1, w_k+1 = w_k * ratio,
// Z = the sum of the w and of the tail's weight, its odds against p_1.
//
// The levels lie closer where an error costs more Kullback-Leibler divergence: densely where two
// weights are alike, sparsely where one of them hardly counts. Every level is 2^(n / 32) for an
// integer n, and everything here is IEEE double arithmetic without libm: the same bits everywhere.
#include <algorithm>
#include <array>
#include <cmath>

#include "format/packed.h"
#include "format/packed_levels.h"

namespace fkdb {
namespace {

// The thresholds between levels: their geometric means.
template <size_t N>
struct Thresholds {
  std::array<double, N> threshold;  // a number below threshold[c] has a code above c; the last is 0

  explicit Thresholds(const std::array<double, N>& level) {
    for (size_t c = 0; c + 1 < N; ++c) threshold[c] = std::sqrt(level[c] * level[c + 1]);
    threshold[N - 1] = 0;
  }
  uint64_t Code(double number) const {
    const auto at = std::partition_point(threshold.begin(), threshold.end() - 1, [&](double t) { return number < t; });
    return static_cast<uint64_t>(at - threshold.begin());
  }
};

const Thresholds kRatioThresholds(kRatioLevels);
const Thresholds kTailThresholds(kTailLevels);
const Thresholds kFullThresholds(kFullLevels);

void PackTopK(const LabelSpec& spec, const float* p, BitWriter* out) {
  const uint32_t k = spec.num_values();
  const double largest = p[0];
  if (spec.has_tail()) {
    double sum = 0;
    for (uint32_t i = 0; i < k; ++i) sum += p[i];
    out->Put(largest > 0 ? kTailThresholds.Code(std::max(0.0, 1 - sum) / largest) : 0, kTailBits);
  }
  // Each ratio is taken against the value as it will be read back: errors do not add up.
  double weight = largest;
  for (uint32_t i = 1; i < k; ++i) {
    const uint64_t code = weight > 0 ? kRatioThresholds.Code(p[i] / weight) : 0;
    weight *= kRatioLevels[code];
    out->Put(code, kRatioBits);
  }
}

void UnpackTopK(const LabelSpec& spec, const uint8_t* bytes, uint64_t bit, float* p) {
  const uint32_t k = spec.num_values();
  BitReader reader(bytes, bit);
  double sum = 1;
  if (spec.has_tail()) sum += kTailLevels[reader.Next(kTailBits)];
  constexpr uint32_t kFew = 16;  // weights that are kept for the second pass; the others are read again
  double few[kFew] = {1};
  double weight = 1;
  BitReader again = reader;
  for (uint32_t i = 1; i < k; ++i) {
    if (i == kFew) again = reader;
    weight *= kRatioLevels[reader.Next(kRatioBits)];
    sum += weight;
    if (i < kFew) few[i] = weight;
  }
  const double scale = 1 / sum;
  for (uint32_t i = 0; i < std::min(k, kFew); ++i) p[i] = static_cast<float>(std::max(few[i] * scale, kSmallestPacked));
  weight = few[kFew - 1];
  for (uint32_t i = kFew; i < k; ++i) {
    weight *= kRatioLevels[again.Next(kRatioBits)];
    p[i] = static_cast<float>(std::max(weight * scale, kSmallestPacked));
  }
}

// The same of many crops whose values are one load each.
void UnpackNarrowTopK(const LabelSpec& spec, const uint8_t* bytes, uint64_t bit, uint64_t stride, size_t crops, float* p) {
  const uint32_t k = spec.num_values();
  const bool has_tail = spec.has_tail();
  constexpr uint32_t kMost = kMaxFieldBits / kRatioBits + 1;
  double weights[kMost] = {1};
  for (size_t crop = 0; crop < crops; ++crop, bit += stride, p += k) {
    uint64_t codes = ReadBits(bytes, bit, kMaxFieldBits);
    double sum = 1, weight = 1;
    if (has_tail) {
      sum += kTailLevels[codes & ((1u << kTailBits) - 1)];
      codes >>= kTailBits;
    }
    for (uint32_t i = 1; i < k; ++i, codes >>= kRatioBits) {
      weight *= kRatioLevels[codes & ((1u << kRatioBits) - 1)];
      sum += weight;
      weights[i] = weight;
    }
    const double scale = 1 / sum;
    for (uint32_t i = 0; i < k; ++i) p[i] = static_cast<float>(std::max(weights[i] * scale, kSmallestPacked));
  }
}

void PackFull(const LabelSpec& spec, const float* p, BitWriter* out) {
  const double largest = *std::max_element(p, p + spec.num_classes);
  for (uint32_t c = 0; c < spec.num_classes; ++c) out->Put(kFullThresholds.Code(p[c] / largest), kFullBits);
}

void UnpackFull(const LabelSpec& spec, const uint8_t* bytes, uint64_t bit, float* p) {
  double sum = 0;
  for (uint32_t c = 0; c < spec.num_classes; ++c) {
    sum += kFullLevels[ReadBits(bytes, bit + uint64_t{c} * kFullBits, kFullBits)];
  }
  for (uint32_t c = 0; c < spec.num_classes; ++c, bit += kFullBits) {
    p[c] = static_cast<float>(kFullLevels[ReadBits(bytes, bit, kFullBits)] / sum);
  }
}

// z = largest - step * code.
void PackLogits(const LabelSpec& spec, const float* z, BitWriter* out) {
  const auto [low, high] = std::minmax_element(z, z + spec.num_classes);
  const double largest = *high;
  const auto step = static_cast<float>((largest - *low) / 255);
  out->Put(std::bit_cast<uint32_t>(*high), 32);
  out->Put(std::bit_cast<uint32_t>(step), 32);
  for (uint32_t c = 0; c < spec.num_classes; ++c) {
    const double code = step > 0 ? std::floor((largest - z[c]) / step + 0.5) : 0;
    out->Put(static_cast<uint64_t>(std::clamp(code, 0.0, 255.0)), kLogitBits);
  }
}

void UnpackLogits(const LabelSpec& spec, const uint8_t* bytes, uint64_t bit, float* z) {
  const double largest = std::bit_cast<float>(static_cast<uint32_t>(ReadBits(bytes, bit, 32)));
  const double step = std::bit_cast<float>(static_cast<uint32_t>(ReadBits(bytes, bit + 32, 32)));
  bit += 64;
  for (uint32_t c = 0; c < spec.num_classes; ++c, bit += kLogitBits) {
    z[c] = static_cast<float>(largest - step * static_cast<double>(ReadBits(bytes, bit, kLogitBits)));
  }
}

}  // namespace

uint32_t PackedValueBits(const LabelSpec& spec) {
  switch (spec.kind) {
    case LabelKind::kHard:
    case LabelKind::kLabelMap:  // never packed
      return 0;
    case LabelKind::kFull:
      return kFullBits * spec.num_classes;
    case LabelKind::kLogits:
      return 64 + kLogitBits * spec.num_classes;
    case LabelKind::kSmoothing:
    case LabelKind::kMarginalSmoothing:
    case LabelKind::kMarginalRenorm:
      break;
  }
  return (spec.has_tail() ? kTailBits : 0) + kRatioBits * (spec.top_k - 1);
}

void PackValues(const LabelSpec& spec, const float* values, BitWriter* out) {
  if (spec.kind == LabelKind::kHard) return;
  if (spec.kind == LabelKind::kFull) return PackFull(spec, values, out);
  if (spec.kind == LabelKind::kLogits) return PackLogits(spec, values, out);
  PackTopK(spec, values, out);
}

void UnpackValues(const LabelSpec& spec, const uint8_t* bytes, uint64_t bit, float* out) {
  if (spec.kind == LabelKind::kHard) return;
  if (spec.kind == LabelKind::kFull) return UnpackFull(spec, bytes, bit, out);
  if (spec.kind == LabelKind::kLogits) return UnpackLogits(spec, bytes, bit, out);
  UnpackTopK(spec, bytes, bit, out);
}

void UnpackValues(const LabelSpec& spec, const uint8_t* bytes, uint64_t bit, uint64_t stride, size_t crops, float* out) {
  if (spec.num_indices() > 0 && spec.num_values() > 0 && PackedValueBits(spec) <= kMaxFieldBits) {
    return UnpackNarrowTopK(spec, bytes, bit, stride, crops, out);
  }
  for (size_t i = 0; i < crops; ++i) UnpackValues(spec, bytes, bit + i * stride, out + i * spec.num_values());
}

}  // namespace fkdb
