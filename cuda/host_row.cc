// SPDX-License-Identifier: Apache-2.0
// The long loops over a row of logits, compiled for several instruction sets; the best one that the
// processor has is taken at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cuda/host_row.cc"
#define HWY_WANT_AVX3_DL
#include <hwy/foreach_target.h>
// foreach_target.h comes before the code it includes again and again.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "cuda/host_row.h"
#include "format/half.h"

HWY_BEFORE_NAMESPACE();
namespace fkdb::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kMaxLanes = HWY_MAX_BYTES / sizeof(float);

// Calls body(vector, position, lanes) for every vector of a row; the last may be partly filled with
// `fill`.
template <class D, class Body>
HWY_INLINE void ForEachVector(D d, const float* row, size_t count, float fill, Body body) {
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) body(hn::LoadU(d, row + i), i, lanes);
  if (i < count) {
    HWY_ALIGN float last[kMaxLanes];
    std::fill(last, last + lanes, fill);
    std::copy(row + i, row + count, last);
    body(hn::Load(d, last), i, count - i);
  }
}

float LargestOf(const float* row, size_t count) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  auto a = hn::Set(d, -INFINITY), b = a, c = a, e = a;  // four at a time: a maximum waits for the one before
  size_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    a = hn::Max(a, hn::LoadU(d, row + i));
    b = hn::Max(b, hn::LoadU(d, row + i + lanes));
    c = hn::Max(c, hn::LoadU(d, row + i + 2 * lanes));
    e = hn::Max(e, hn::LoadU(d, row + i + 3 * lanes));
  }
  auto largest = hn::Max(hn::Max(a, b), hn::Max(c, e));
  ForEachVector(d, row + i, count - i, -INFINITY, [&](auto x, size_t, size_t) HWY_ATTR { largest = hn::Max(largest, x); });
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

// exp(z) for z <= 0, its relative error below 2e-7; 0 below kExpIsZero, where exp is 1.8e-38. z = n ln 2 + r with
// |r| <= ln 2 / 2; exp(r) is the polynomial of degree 5 with the least largest relative error, 1.05e-7. The result
// of a NaN is of no use.
constexpr float kExpIsZero = -86.9f;

template <class D>
HWY_INLINE hn::Vec<D> ExpOfNegative(D d, hn::Vec<D> z) {
  const hn::RebindToUnsigned<D> du;
  // Adding 1.5 * 2^23 leaves n in the lowest bits.
  const auto shifted = hn::MulAdd(z, hn::Set(d, 1.44269504f), hn::Set(d, 12582912.0f));
  const auto n = hn::Sub(shifted, hn::Set(d, 12582912.0f));
  // ln 2 in two parts: n times the first is exact.
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), z);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  auto p = hn::MulAdd(hn::Set(d, 0x1.1062500000000p-7f), r, hn::Set(d, 0x1.572a640000000p-5f));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.5557b00000000p-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.fffdfc0000000p-2f));
  p = hn::MulAdd(p, hn::Mul(r, r), hn::Add(r, hn::Set(d, 1.0f)));
  // times 2^n, in the exponent's bits: p is near 1, and n is above -126.
  const auto scaled = hn::BitCast(d, hn::Add(hn::BitCast(du, p), hn::ShiftLeft<23>(hn::BitCast(du, shifted))));
  return hn::IfThenElseZero(hn::Ge(z, hn::Set(d, kExpIsZero)), scaled);
}

// A lane's float sums of so many numbers are added up in double: a row of 21,841 classes keeps its digits.
constexpr size_t kBlockVectors = 64;

HostRow::Sums SumExp(const float* row, size_t count, float largest, float inverse_t, float* exps) {
  const hn::ScalableTag<float> d;
  const size_t block_size = kBlockVectors * hn::Lanes(d);
  const auto shift = hn::Set(d, largest), scale = hn::Set(d, inverse_t);
  HostRow::Sums sums = {0, 0};
  for (size_t block = 0; block < count; block += block_size) {
    auto exp_sum = hn::Zero(d), plain_sum = hn::Zero(d);
    // Filled up with `largest`, whose z is 0 and whose exp is 1: subtracted below.
    const size_t size = std::min(block_size, count - block);
    ForEachVector(d, row + block, size, largest, [&](auto x, size_t i, size_t filled) HWY_ATTR {
      const auto z = hn::Mul(hn::Sub(x, shift), scale);
      const auto e = ExpOfNegative(d, z);
      exp_sum = hn::Add(exp_sum, e);
      plain_sum = hn::Add(plain_sum, z);
      if (exps == nullptr) return;
      if (filled == hn::Lanes(d)) {
        hn::StoreU(e, d, exps + block + i);
      } else {
        HWY_ALIGN float last[kMaxLanes];
        hn::Store(e, d, last);
        std::copy(last, last + filled, exps + block + i);
      }
    });
    const size_t unfilled = (hn::Lanes(d) - size % hn::Lanes(d)) % hn::Lanes(d);
    sums.exp += double{hn::GetLane(hn::SumOfLanes(d, exp_sum))} - static_cast<double>(unfilled);
    sums.plain += hn::GetLane(hn::SumOfLanes(d, plain_sum));
  }
  if (std::isnan(sums.plain)) sums.exp = NAN;  // no z is above 0: only a NaN among them makes their sum one
  return sums;
}

// Calls body(label's vector, row's vector, position, lanes) for every vector of both; a last one is filled up with
// labels of no weight: values of 0, or -infinity under exp.
template <class D, class Body>
HWY_INLINE void ForEachLabel(D d, const RowLabel& label, const float* row, size_t count, Body body) {
  const auto shift = hn::Set(d, label.shift), scale = hn::Set(d, label.inverse_tau);
  const float none = label.exponential ? -INFINITY : 0;
  ForEachVector(d, label.values, count, none, [&](auto values, size_t i, size_t filled) HWY_ATTR {
    const auto y = label.exponential ? ExpOfNegative(d, hn::Mul(hn::Sub(values, shift), scale)) : values;
    if (filled == hn::Lanes(d)) return body(y, hn::LoadU(d, row + i), i, filled);
    HWY_ALIGN float last[kMaxLanes] = {};
    std::copy(row + i, row + i + filled, last);
    body(y, hn::Load(d, last), i, filled);
  });
}

HostRow::Weights WeighLogits(const RowLabel& label, const float* row, size_t count, float largest,
                             float inverse_t) {
  const hn::ScalableTag<float> d;
  const size_t block_size = kBlockVectors * hn::Lanes(d);
  const auto shift = hn::Set(d, largest), scale = hn::Set(d, inverse_t);
  HostRow::Weights weights = {0, 0};
  for (size_t block = 0; block < count; block += block_size) {
    auto sum = hn::Zero(d), dot = hn::Zero(d);
    RowLabel part = label;
    part.values += block;
    ForEachLabel(d, part, row + block, std::min(block_size, count - block), [&](auto y, auto x, size_t, size_t) HWY_ATTR {
      sum = hn::Add(sum, y);
      // A label of 0 times a logit of -infinity counts nothing.
      const auto term = hn::Mul(y, hn::Mul(hn::Sub(x, shift), scale));
      dot = hn::Add(dot, hn::IfThenElseZero(hn::Ne(y, hn::Zero(d)), term));
    });
    weights.label += hn::GetLane(hn::SumOfLanes(d, sum));
    weights.dot += hn::GetLane(hn::SumOfLanes(d, dot));
  }
  return weights;
}

void SubtractLabel(const RowLabel& label, float* row, size_t count, float factor) {
  const hn::ScalableTag<float> d;
  const auto f = hn::Set(d, factor);
  ForEachLabel(d, label, row, count, [&](auto y, auto x, size_t i, size_t filled) HWY_ATTR {
    const auto rest = hn::NegMulAdd(f, y, x);
    if (filled == hn::Lanes(d)) return hn::StoreU(rest, d, row + i);
    HWY_ALIGN float last[kMaxLanes];
    hn::Store(rest, d, last);
    std::copy(last, last + filled, row + i);
  });
}

// Processors before AVX2 cannot convert binary16, and what Highway does instead truncates.
constexpr bool kHasHalf = HWY_TARGET != HWY_SSE4 && HWY_TARGET != HWY_SSSE3 && HWY_TARGET != HWY_SCALAR;

void FromHalf(const uint16_t* in, size_t count, float* out) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> half;
  size_t i = 0;
  for (; kHasHalf && i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    hn::StoreU(hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(in + i))), d, out + i);
  }
  for (; i < count; ++i) out[i] = FloatFromHalf(in[i]);
}

void ToHalf(const float* in, size_t count, uint16_t* out) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> half;
  size_t i = 0;
  for (; kHasHalf && i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    hn::StoreU(hn::DemoteTo(half, hn::LoadU(d, in + i)), half, reinterpret_cast<hwy::float16_t*>(out + i));
  }
  for (; i < count; ++i) out[i] = HalfFromFloat(in[i]);
}

void FromBf16(const uint16_t* in, size_t count, float* out) {
  const hn::ScalableTag<uint32_t> d;
  const hn::Rebind<uint16_t, decltype(d)> half;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    hn::StoreU(hn::BitCast(hn::RebindToFloat<decltype(d)>(), hn::ShiftLeft<16>(hn::PromoteTo(d, hn::LoadU(half, in + i)))),
               hn::RebindToFloat<decltype(d)>(), out + i);
  }
  for (; i < count; ++i) out[i] = FloatFromBf16(in[i]);
}

void ToBf16(const float* in, size_t count, uint16_t* out) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::Rebind<uint16_t, decltype(d)> half;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    const auto x = hn::LoadU(d, in + i);
    const auto bits = hn::BitCast(du, x);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
    const auto nan = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40u));
    const auto is_nan = hn::RebindMask(du, hn::IsNaN(x));
    hn::StoreU(hn::DemoteTo(half, hn::BitCast(hn::RebindToSigned<decltype(du)>(), hn::IfThenElse(is_nan, nan, rounded))), half,
               out + i);
  }
  for (; i < count; ++i) out[i] = Bf16FromFloat(in[i]);
}

void ScaleAndShift(float* row, size_t count, float factor, float term) {
  const hn::ScalableTag<float> d;
  const auto f = hn::Set(d, factor), t = hn::Set(d, term);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) hn::StoreU(hn::MulSub(hn::LoadU(d, row + i), f, t), d, row + i);
  for (; i < count; ++i) row[i] = std::fma(row[i], factor, -term);
}

}  // namespace fkdb::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fkdb {

HWY_EXPORT(LargestOf);
HWY_EXPORT(SumExp);
HWY_EXPORT(ScaleAndShift);
HWY_EXPORT(WeighLogits);
HWY_EXPORT(SubtractLabel);
HWY_EXPORT(FromHalf);
HWY_EXPORT(ToHalf);
HWY_EXPORT(FromBf16);
HWY_EXPORT(ToBf16);

float HostRow::LargestOf(const float* row, uint32_t count) { return HWY_DYNAMIC_DISPATCH(LargestOf)(row, count); }

HostRow::Sums HostRow::SumExp(const float* row, uint32_t count, float largest, float inverse_t, float* exps) {
  return HWY_DYNAMIC_DISPATCH(SumExp)(row, count, largest, inverse_t, exps);
}

HostRow::Weights HostRow::Weigh(const RowLabel& label, const float* row, uint32_t count, float largest, float inverse_t) {
  return HWY_DYNAMIC_DISPATCH(WeighLogits)(label, row, count, largest, inverse_t);
}

void HostRow::ScaleAndShift(float* row, uint32_t count, float factor, float term) {
  HWY_DYNAMIC_DISPATCH(ScaleAndShift)(row, count, factor, term);
}

void HostRow::SubtractLabel(const RowLabel& label, float* row, uint32_t count, float factor) {
  HWY_DYNAMIC_DISPATCH(SubtractLabel)(label, row, count, factor);
}

double HostRow::SumOf(const RowLabel& label) const {
  double sum = 0;
  for (uint32_t c = 0; c < classes_; ++c) sum += label.Stored(label.values[c]);
  return sum;
}

void HostRow::WriteLabel(const RowLabel& label) {
  if (label.indices == nullptr) {
    for (uint32_t c = 0; c < classes_; ++c) gradient_[c] = label.at(c);
    return;
  }
  std::fill(gradient_, gradient_ + classes_, label.tail);
  for (uint32_t k = 0; k < label.count; ++k) gradient_[label.indices[k]] = label.at(k);
}

void HostRow::WriteGradient(float factor, float scale, const RowLabel* parts, int num_parts) {
  float tail = 0;
  for (int i = 0; i < num_parts; ++i) tail += parts[i].tail;
  ScaleAndShift(gradient_, classes_, factor, scale * tail);
  for (int i = 0; i < num_parts; ++i) {
    const RowLabel& label = parts[i];
    if (label.indices == nullptr) SubtractLabel(label, gradient_, classes_, scale * label.scale);
    for (uint32_t k = 0; label.indices != nullptr && k < label.count; ++k) {
      gradient_[label.indices[k]] -= scale * (label.at(k) - label.tail);
    }
  }
}

void RowFromHalf(const uint16_t* in, size_t count, float* out) { HWY_DYNAMIC_DISPATCH(FromHalf)(in, count, out); }
void RowToHalf(const float* in, size_t count, uint16_t* out) { HWY_DYNAMIC_DISPATCH(ToHalf)(in, count, out); }
void RowFromBf16(const uint16_t* in, size_t count, float* out) { HWY_DYNAMIC_DISPATCH(FromBf16)(in, count, out); }
void RowToBf16(const float* in, size_t count, uint16_t* out) { HWY_DYNAMIC_DISPATCH(ToBf16)(in, count, out); }

}  // namespace fkdb
#endif
