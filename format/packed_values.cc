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

namespace fkdb {
namespace {

constexpr uint32_t kRatioBits = 5, kTailBits = 7, kFullBits = 8, kLogitBits = 8;

// 2^(j / 32).
constexpr std::array<double, 32> kRoots = {
    1.0,                1.0218971486541166, 1.0442737824274138, 1.0671404006768237, 1.0905077326652577,
    1.1143867425958924, 1.1387886347566916, 1.1637248587775775, 1.189207115002721,  1.215247359980469,
    1.241857812073484,  1.2690509571917332, 1.2968395546510096, 1.3252366431597413, 1.3542555469368927,
    1.383909881963832,  1.4142135623730951, 1.4451808069770467, 1.4768261459394993, 1.5091644275934228,
    1.5422108254079407, 1.5759808451078865, 1.6104903319492543, 1.645755478153965,  1.681792830507429,
    1.718619298122478,  1.7562521603732995, 1.7947090750031072, 1.8340080864093424, 1.8741676341103,
    1.9152065613971474, 1.9571441241754002};

// Of a probability to the one before: level c is 2^(-kRatio[c] / 32).
constexpr std::array<int, 1 << kRatioBits> kRatio = {0,  5,   10,  15,  21,  26,  31,  37,  42,  48,  54,
                                                     60, 66,  73,  80,  87,  94,  103, 111, 121, 131, 142,
                                                     154, 169, 185, 204, 226, 255, 292, 342, 413, 512};

// Of all classes outside the K together to the largest: level c is 2^(kTail[c] / 32).
constexpr std::array<int, 1 << kTailBits> kTail = {
    768, 683, 601, 526, 460, 406, 364, 330, 302, 280, 261, 244, 230, 217, 206, 196,
    186, 178, 170, 162, 155, 149, 143, 137, 131, 126, 121, 116, 112, 107, 103, 99,
    95, 91, 87, 84, 80, 76, 73, 70, 67, 63, 60, 57, 54, 51, 48, 46,
    43, 40, 37, 34, 32, 29, 26, 24, 21, 19, 16, 13, 11, 8, 6, 3,
    1, -2, -4, -7, -10, -12, -15, -17, -20, -22, -25, -28, -30, -33, -36, -38,
    -41, -44, -47, -50, -53, -56, -59, -62, -65, -68, -71, -75, -78, -82, -85, -89,
    -93, -97, -101, -105, -109, -114, -119, -123, -129, -134, -140, -146, -152, -159, -166, -173,
    -182, -191, -200, -211, -223, -237, -252, -269, -290, -315, -345, -383, -431, -490, -561, -640};

// Of a class of a full label to the largest: 2^(-n / 32) in steps of 1/16, then 3/16 octave.
constexpr int FullExponent(int code) { return code < 128 ? 2 * code : 256 + 6 * (code - 128); }

// What is read back is never 0, however many steep ratios follow one another: no label diverges
// without bound from what the teacher said.
constexpr double kSmallest = 0x1p-126;

double Power(int n) { return std::ldexp(kRoots[static_cast<size_t>(n & 31)], n >> 5); }

// Levels in descending order, and the thresholds between them: their geometric means.
template <size_t N>
struct Levels {
  std::array<double, N> level;
  std::array<double, N> threshold;  // a number below threshold[c] has a code above c; the last is 0

  template <class Exponent>
  explicit Levels(Exponent exponent) {
    for (size_t c = 0; c < N; ++c) level[c] = Power(exponent(static_cast<int>(c)));
    for (size_t c = 0; c + 1 < N; ++c) threshold[c] = std::sqrt(level[c] * level[c + 1]);
    threshold[N - 1] = 0;
  }
  uint64_t Code(double number) const {
    const auto at = std::partition_point(threshold.begin(), threshold.end() - 1, [&](double t) { return number < t; });
    return static_cast<uint64_t>(at - threshold.begin());
  }
};

const Levels<1 << kRatioBits> kRatioLevels([](int c) { return -kRatio[static_cast<size_t>(c)]; });
const Levels<1 << kTailBits> kTailLevels([](int c) { return kTail[static_cast<size_t>(c)]; });
const Levels<1 << kFullBits> kFullLevels([](int c) { return -FullExponent(c); });

void PackTopK(const LabelSpec& spec, const float* p, BitWriter* out) {
  const uint32_t k = spec.num_values();
  const double largest = p[0];
  if (spec.has_tail()) {
    double sum = 0;
    for (uint32_t i = 0; i < k; ++i) sum += p[i];
    out->Put(largest > 0 ? kTailLevels.Code(std::max(0.0, 1 - sum) / largest) : 0, kTailBits);
  }
  // Each ratio is taken against the value as it will be read back: errors do not add up.
  double weight = largest;
  for (uint32_t i = 1; i < k; ++i) {
    const uint64_t code = weight > 0 ? kRatioLevels.Code(p[i] / weight) : 0;
    weight *= kRatioLevels.level[code];
    out->Put(code, kRatioBits);
  }
}

void UnpackTopK(const LabelSpec& spec, const uint8_t* bytes, uint64_t bit, float* p) {
  const uint32_t k = spec.num_values();
  BitReader reader(bytes, bit);
  double sum = 1;
  if (spec.has_tail()) sum += kTailLevels.level[reader.Next(kTailBits)];
  constexpr uint32_t kFew = 16;  // weights that are kept for the second pass; the others are read again
  double few[kFew] = {1};
  double weight = 1;
  BitReader again = reader;
  for (uint32_t i = 1; i < k; ++i) {
    if (i == kFew) again = reader;
    weight *= kRatioLevels.level[reader.Next(kRatioBits)];
    sum += weight;
    if (i < kFew) few[i] = weight;
  }
  const double scale = 1 / sum;
  for (uint32_t i = 0; i < std::min(k, kFew); ++i) p[i] = static_cast<float>(std::max(few[i] * scale, kSmallest));
  weight = few[kFew - 1];
  for (uint32_t i = kFew; i < k; ++i) {
    weight *= kRatioLevels.level[again.Next(kRatioBits)];
    p[i] = static_cast<float>(std::max(weight * scale, kSmallest));
  }
}

void PackFull(const LabelSpec& spec, const float* p, BitWriter* out) {
  const double largest = *std::max_element(p, p + spec.num_classes);
  for (uint32_t c = 0; c < spec.num_classes; ++c) out->Put(kFullLevels.Code(p[c] / largest), kFullBits);
}

void UnpackFull(const LabelSpec& spec, const uint8_t* bytes, uint64_t bit, float* p) {
  double sum = 0;
  for (uint32_t c = 0; c < spec.num_classes; ++c) {
    sum += kFullLevels.level[ReadBits(bytes, bit + uint64_t{c} * kFullBits, kFullBits)];
  }
  for (uint32_t c = 0; c < spec.num_classes; ++c, bit += kFullBits) {
    p[c] = static_cast<float>(kFullLevels.level[ReadBits(bytes, bit, kFullBits)] / sum);
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

TopKCodes PackedTopKCodes() {
  return {kTailBits, kRatioBits, kTailLevels.level.data(), kRatioLevels.level.data(), kSmallest};
}

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

}  // namespace fkdb
