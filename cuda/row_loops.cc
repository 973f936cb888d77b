// SPDX-License-Identifier: Apache-2.0
// The long loops over a row of logits, compiled for several instruction sets; the best one that the
// processor has is taken at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cuda/row_loops.cc"
#define HWY_WANT_AVX3_DL
#include <hwy/foreach_target.h>
// foreach_target.h comes before the code it includes again and again.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "cuda/lane_group.h"

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
  auto largest = hn::Set(d, -INFINITY);
  ForEachVector(d, row, count, -INFINITY, [&](auto x, size_t, size_t) HWY_ATTR { largest = hn::Max(largest, x); });
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

// A lane's float sums of so many numbers are added up in double: a row of 21,841 classes keeps its digits.
constexpr size_t kBlockVectors = 64;

OneLane::Sums SumExp(const float* row, size_t count, float largest, float inverse_t, float* exps) {
  const hn::ScalableTag<float> d;
  const size_t block_size = kBlockVectors * hn::Lanes(d);
  const auto shift = hn::Set(d, largest), scale = hn::Set(d, inverse_t);
  OneLane::Sums sums = {0, 0};
  auto wrong = hn::FirstN(d, 0);
  for (size_t block = 0; block < count; block += block_size) {
    auto exp_sum = hn::Zero(d), plain_sum = hn::Zero(d);
    // Filled up with `largest`, whose z is 0 and whose exp is 1: subtracted below.
    const size_t size = std::min(block_size, count - block);
    ForEachVector(d, row + block, size, largest, [&](auto x, size_t i, size_t filled) HWY_ATTR {
      const auto z = hn::Mul(hn::Sub(x, shift), scale);
      const auto e = hn::Exp(d, z);
      wrong = hn::Or(wrong, hn::IsNaN(z));
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
  if (!hn::AllFalse(d, wrong)) sums.exp = sums.plain = NAN;
  return sums;
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

float OneLane::LargestOf(const float* row, uint32_t count) { return HWY_DYNAMIC_DISPATCH(LargestOf)(row, count); }

OneLane::Sums OneLane::SumExp(const float* row, uint32_t count, float largest, float inverse_t, float* exps) {
  return HWY_DYNAMIC_DISPATCH(SumExp)(row, count, largest, inverse_t, exps);
}

void OneLane::ScaleAndShift(float* row, uint32_t count, float factor, float term) {
  HWY_DYNAMIC_DISPATCH(ScaleAndShift)(row, count, factor, term);
}

}  // namespace fkdb
#endif
