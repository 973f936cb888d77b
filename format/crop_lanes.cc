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
constexpr uint64_t kLower = 0xffffffff;

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
  uint64_t word[4][N];  // in the lower halves
};

// format/random.h's Philox: three consecutive blocks of each lane, whose rounds wait together.
void Philox(uint64_t key, uint64_t stream, const uint32_t* index, uint32_t draw, Block* out) {
  constexpr size_t kBlocks = 3;
  const Vector zero = {};
  const Vector m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u;
  for (size_t first = 0; first < N; first += kInVector) {
    Vector c0[kBlocks], c1[kBlocks], c2[kBlocks], c3[kBlocks], indices = zero;
    for (size_t i = 0; i < kInVector; ++i) indices[i] = index[first + i];
    for (size_t b = 0; b < kBlocks; ++b) {
      c0[b] = zero + static_cast<uint32_t>(stream);
      c1[b] = zero + (stream >> 32);
      c2[b] = zero + (draw + b);
      c3[b] = indices;
    }
    auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {  // what stands in the upper halves of c1 and c3 counts for nothing
      for (size_t b = 0; b < kBlocks; ++b) {
        const Vector p0 = Product(m0, c0[b]), p1 = Product(m1, c2[b]);
        c0[b] = (p1 >> 32) ^ c1[b] ^ k0;
        c2[b] = (p0 >> 32) ^ c3[b] ^ k1;
        c1[b] = p1;
        c3[b] = p0;
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    for (size_t b = 0; b < kBlocks; ++b) {
      __builtin_memcpy(&out[b].word[0][first], &c0[b], sizeof(Vector));
      __builtin_memcpy(&out[b].word[1][first], &c1[b], sizeof(Vector));
      __builtin_memcpy(&out[b].word[2][first], &c2[b], sizeof(Vector));
      __builtin_memcpy(&out[b].word[3][first], &c3[b], sizeof(Vector));
    }
  }
}

// A 32-bit number as a double. There is no vector conversion of it before AVX-512.
double ToDouble(uint64_t number) { return FromBits(0x4330000000000000u | number) - 0x1p52; }

// CounterRandom's 53 random bits as a double in [0, 1).
void Unit(const uint64_t* high, const uint64_t* low, double* out) {
  for (size_t i = 0; i < N; ++i) {
    const uint64_t bits = (high[i] << 32 | (low[i] & kLower)) >> 11;
    out[i] = (ToDouble(bits >> 32) * 0x1p32 + ToDouble(bits & kLower)) * 0x1p-53;
  }
}

// What the whole number `x` below 2^53 leaves when divided by `bound` <= kMaxLaneSide; `inverse` is 1 / bound. Every step
// but the quotient, which is at most one off, is exact.
double Remainder(double x, double bound, double inverse) {
  const double rest = x - (x * inverse + 0x1p52 - 0x1p52) * bound;
  return rest < 0 ? rest + bound : rest;
}

// CounterRandom::NextBelow of one word: the upper half first, then what it leaves with the lower.
void Below(const uint64_t* high, const uint64_t* low, double side, const double* taken, double* out) {
  for (size_t i = 0; i < N; ++i) {
    const double room = side - taken[i] + 1, bound = room < 1 ? 1 : room, inverse = 1 / bound;
    out[i] = Remainder(Remainder(ToDouble(high[i] & kLower), bound, inverse) * 0x1p32 + ToDouble(low[i] & kLower), bound, inverse);
  }
}

// x / divisor, correctly rounded as a division is, for divisors of 1 to 17: their reciprocals y = RN(1 / divisor) err by at
// most 2^-54 of themselves (each was checked), so that RN(x y) is within a unit of the quotient's last place, and
// by Markstein's theorem one step of its remainder gives the division's own result. A division takes five times as long.
double Quotient(double x, double divisor, double reciprocal) {
#ifdef __FMA__
  const double q = x * reciprocal;
  return __builtin_fma(__builtin_fma(-divisor, q, x), reciprocal, q);
#else
  static_cast<void>(reciprocal);
  return x / divisor;
#endif
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
  // Written out: of a loop around them compilers make no vectors.
  const auto step = [&](double term) __attribute__((always_inline)) {
    const double reciprocal = 1 / term;
    for (size_t i = 0; i < N; ++i) sum[i] = 1 + Quotient(sum[i] * r[i], term, reciprocal);
  };
  step(17), step(16), step(15), step(14), step(13), step(12), step(11), step(10), step(9);
  step(8), step(7), step(6), step(5), step(4), step(3), step(2), step(1);
  for (size_t i = 0; i < N; ++i) out[i] = sum[i] * power[i];
}

}  // namespace

// A crop's draws lie in its words in this order: flip 0 to 1, then for each attempt area, ratio, top, left, two words each;
// an attempt that fails leaves out its top and left.
void FKDB_DRAW_LANES(const LaneRule& rule, uint32_t attempt, LaneDraws* draws) {
  Block blocks[3];
  Philox(rule.seed, rule.stream, draws->index, attempt, blocks);
  const auto& [first, second, third] = blocks;
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
  for (size_t i = 0; i < N; ++i) draws->again[i] = (second.word[2][i] & kLower) == 0 || (third.word[0][i] & kLower) == 0 ? 0 : 1;
}

}  // namespace fkdb
