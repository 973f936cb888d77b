// SPDX-License-Identifier: Apache-2.0
// Compiled several times (FKDB_DRAW_LANES, crop_lanes.h): it includes nothing whose inline functions other files share.
#include "format/crop_lanes.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#ifndef FKDB_DRAW_LANES
#define FKDB_DRAW_LANES DrawLanes
#endif

namespace fkdb {
namespace {

constexpr size_t N = kCropLanes;

// Adding it leaves a double's whole number in its lowest bits, rounded to even, as nearbyint does.
constexpr double kRounder = 0x1.8p52;

double FromBits(uint64_t bits) { return __builtin_bit_cast(double, bits); }
uint64_t ToBits(double number) { return __builtin_bit_cast(uint64_t, number); }

// 64-bit lanes of which Philox's products take the lower halves: one instruction, which compilers do not find.
#if defined(__AVX512F__)
using Vector = uint64_t __attribute__((vector_size(64)));
Vector Product(Vector a, Vector b) { return Vector(_mm512_mul_epu32(__m512i(a), __m512i(b))); }
#elif defined(__AVX2__)
using Vector = uint64_t __attribute__((vector_size(32)));
Vector Product(Vector a, Vector b) { return Vector(_mm256_mul_epu32(__m256i(a), __m256i(b))); }
#elif defined(__SSE2__)
using Vector = uint64_t __attribute__((vector_size(16)));
Vector Product(Vector a, Vector b) { return Vector(_mm_mul_epu32(__m128i(a), __m128i(b))); }
#else
using Vector = uint64_t __attribute__((vector_size(16)));
Vector Product(Vector a, Vector b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
#endif
constexpr size_t kInVector = sizeof(Vector) / sizeof(uint64_t);

struct Block {
  uint32_t word[4][N];
};

// format/random.h's Philox.
void Philox(uint64_t key, uint64_t stream, const uint32_t* index, uint32_t draw, Block* out) {
  for (size_t first = 0; first < N; first += kInVector) {
    const Vector zero = {};
    const Vector m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u;
    Vector c0 = zero + static_cast<uint32_t>(stream), c1 = zero + (stream >> 32), c2 = zero + draw, c3 = zero;
    for (size_t i = 0; i < kInVector; ++i) c3[i] = index[first + i];
    auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {  // what stands in the upper halves of c1 and c3 counts for nothing
      const Vector p0 = Product(m0, c0), p1 = Product(m1, c2);
      c0 = (p1 >> 32) ^ c1 ^ k0;
      c2 = (p0 >> 32) ^ c3 ^ k1;
      c1 = p1;
      c3 = p0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    for (size_t i = 0; i < kInVector; ++i) {
      out->word[0][first + i] = static_cast<uint32_t>(c0[i]);
      out->word[1][first + i] = static_cast<uint32_t>(c1[i]);
      out->word[2][first + i] = static_cast<uint32_t>(c2[i]);
      out->word[3][first + i] = static_cast<uint32_t>(c3[i]);
    }
  }
}

// A 32-bit number as a double. There is no vector conversion of it before AVX-512.
double ToDouble(uint64_t number) { return FromBits(0x4330000000000000u | number) - 0x1p52; }

// CounterRandom's 53 random bits as a double in [0, 1).
void Unit(const uint32_t* high, const uint32_t* low, double* out) {
  for (size_t i = 0; i < N; ++i) {
    const uint64_t bits = (uint64_t{high[i]} << 32 | low[i]) >> 11;
    out[i] = (ToDouble(bits >> 32) * 0x1p32 + ToDouble(bits & 0xffffffffu)) * 0x1p-53;
  }
}

// What the whole number `x` below 2^53 leaves when divided by `bound` <= kMaxLaneSide; `inverse` is 1 / bound. Every step
// but the quotient, which is at most one off, is exact.
double Remainder(double x, double bound, double inverse) {
  const double rest = x - (x * inverse + 0x1p52 - 0x1p52) * bound;
  return rest < 0 ? rest + bound : rest;
}

// CounterRandom::NextBelow of one word: the upper half first, then what it leaves with the lower.
void Below(const uint32_t* high, const uint32_t* low, double side, const double* taken, double* out) {
  for (size_t i = 0; i < N; ++i) {
    const double room = side - taken[i] + 1, bound = room < 1 ? 1 : room, inverse = 1 / bound;
    out[i] = Remainder(Remainder(ToDouble(high[i]), bound, inverse) * 0x1p32 + ToDouble(low[i]), bound, inverse);
  }
}

// PortableExp.
void Exp(const double* x, double* out) {
  constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
  double r[N], sum[N], power[N];
  for (size_t i = 0; i < N; ++i) {
    const double shifted = x[i] * 0x1.71547652b82fep+0 + kRounder;
    const double n = shifted - kRounder;
    power[i] = FromBits((ToBits(shifted) << 52) + 0x3ff0000000000000u);  // 2^n
    r[i] = (x[i] - n * kLn2High) - n * kLn2Low;
    sum[i] = 1;
  }
  for (int term = 17; term >= 1; --term) {
    const double divisor = term;
#pragma GCC unroll 1
    for (size_t i = 0; i < N; ++i) sum[i] = 1 + sum[i] * r[i] / divisor;
  }
  for (size_t i = 0; i < N; ++i) out[i] = sum[i] * power[i];
}

}  // namespace

// A crop's draws lie in its words in this order: flip 0 to 1, then for each attempt area, ratio, top, left, two words each;
// an attempt that fails leaves out its top and left.
void FKDB_DRAW_LANES(const LaneRule& rule, uint32_t attempt, LaneDraws* draws) {
  Block first, second, third;
  Philox(rule.seed, rule.stream, draws->index, attempt, &first);
  Philox(rule.seed, rule.stream, draws->index, attempt + 1, &second);
  Philox(rule.seed, rule.stream, draws->index, attempt + 2, &third);
  if (attempt == 0) Unit(first.word[0], first.word[1], draws->flip);
  double area[N], ratio[N];
  Unit(first.word[2], first.word[3], area);
  Unit(second.word[0], second.word[1], ratio);
  for (size_t i = 0; i < N; ++i) ratio[i] = rule.log_ratio_low + rule.log_ratio_span * ratio[i];
  Exp(ratio, ratio);
  for (size_t i = 0; i < N; ++i) {
    const double target = (rule.image_width * rule.image_height) * (rule.scale_low + rule.scale_span * area[i]);
    draws->width[i] = (__builtin_sqrt(target * ratio[i]) + 0x1p52) - 0x1p52;
    draws->height[i] = (__builtin_sqrt(target / ratio[i]) + 0x1p52) - 0x1p52;
  }
  Below(second.word[2], second.word[3], rule.image_height, draws->height, draws->top);
  Below(third.word[0], third.word[1], rule.image_width, draws->width, draws->left);
  for (size_t i = 0; i < N; ++i) draws->again[i] = second.word[2][i] == 0 || third.word[0][i] == 0 ? 0 : 1;
}

}  // namespace fkdb
