// SPDX-License-Identifier: Apache-2.0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cuda/unpack.cc"
#define HWY_WANT_AVX3_DL
#include <hwy/foreach_target.h>
// foreach_target.h comes before the code it includes again and again.
#include <hwy/highway.h>

#include "cuda/unpack.h"
#include "format/bits.h"
#include "format/compact.h"
#include "format/packed.h"
#include "format/packed_levels.h"

HWY_BEFORE_NAMESPACE();
namespace fkdb::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// A lane a crop: all codes of a crop are in one word. Returns how many rows it did; the rest is too few
// for a vector.
size_t UnpackTopK(const LabelSpec& spec, const uint8_t* values, size_t rows, float* out) {
  const hn::ScalableTag<double> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<float, decltype(d)> df;
  constexpr size_t kMaxLanes = HWY_MAX_BYTES / sizeof(double);
  const size_t lanes = hn::Lanes(d), bytes = CompactValueBytes(spec);
  const uint32_t k = spec.top_k;
  const auto tail_mask = hn::Set(di, (int64_t{1} << kTailBits) - 1);
  const auto ratio_mask = hn::Set(di, (int64_t{1} << kRatioBits) - 1);
  const auto one = hn::Set(d, 1.0), smallest = hn::Set(d, kSmallestPacked);
  const auto offsets = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<int64_t>(bytes)));
  HWY_ALIGN double weights[kMaxFieldBits][kMaxLanes];
  HWY_ALIGN float column[kMaxLanes];
  size_t row = 0;
  for (; row + lanes <= rows; row += lanes, out += lanes * k) {
    auto word = hn::GatherOffset(di, reinterpret_cast<const int64_t*>(values + row * bytes), offsets);
    auto sum = one, weight = one;
    if (spec.has_tail()) {
      sum = hn::Add(sum, hn::GatherIndex(d, kTailLevels.data(), hn::And(word, tail_mask)));
      word = hn::ShiftRightSame(word, kTailBits);
    }
    for (uint32_t i = 1; i < k; ++i) {
      weight = hn::Mul(weight, hn::GatherIndex(d, kRatioLevels.data(), hn::And(word, ratio_mask)));
      word = hn::ShiftRightSame(word, kRatioBits);
      sum = hn::Add(sum, weight);
      hn::Store(weight, d, weights[i]);
    }
    const auto scale = hn::Div(one, sum);
    for (uint32_t i = 0; i < k; ++i) {
      const auto p = hn::Max(hn::Mul(i == 0 ? one : hn::Load(d, weights[i]), scale), smallest);
      hn::Store(hn::DemoteTo(df, p), df, column);
      for (size_t lane = 0; lane < lanes; ++lane) out[lane * k + i] = column[lane];
    }
  }
  return row;
}

}  // namespace fkdb::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fkdb {

HWY_EXPORT(UnpackTopK);

void UnpackLabels(const LabelSpec& spec, const std::byte* indices, const std::byte* values, size_t rows,
                  uint32_t* out_indices, float* out_values) {
  ExpandIndices(spec, indices, rows, out_indices);
  size_t done = 0;
  const bool top_k = spec.packed() && spec.num_indices() > 0 && spec.num_values() > 0;
  if (top_k && PackedValueBits(spec) <= kMaxFieldBits) {
    done = HWY_DYNAMIC_DISPATCH(UnpackTopK)(spec, reinterpret_cast<const uint8_t*>(values), rows, out_values);
  }
  ExpandValues(spec, values + done * CompactValueBytes(spec), rows - done, out_values + done * spec.num_values());
}

}  // namespace fkdb
#endif
