// SPDX-License-Identifier: Apache-2.0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "image/color_kernels.cc"
#define HWY_WANT_AVX3_DL
#include <hwy/foreach_target.h>
// foreach_target.h comes before the code it includes again and again.
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "image/color_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace fkdb::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using I = hn::Rebind<int32_t, F>;
using B = hn::Rebind<uint8_t, F>;  // as many bytes as F has lanes
using Bytes = hn::Vec<B>;
using Ints = hn::Vec<I>;
using Floats = hn::Vec<F>;
constexpr F kF;
constexpr I kI;
constexpr B kB;

HWY_INLINE Floats ToFloat(Bytes x) { return hn::ConvertTo(kF, hn::PromoteTo(kI, x)); }
// Clamped; the fraction is dropped.
HWY_INLINE Bytes ToByte(Floats x) {
  return hn::DemoteTo(kB, hn::ConvertTo(kI, hn::Clamp(x, hn::Zero(kF), hn::Set(kF, 255.0f))));
}
HWY_INLINE Bytes BlendLanes(Floats from, Floats to, Floats share) {
  return ToByte(hn::Add(from, hn::Mul(share, hn::Sub(to, from))));
}
HWY_INLINE Ints GreyOf(Bytes r, Bytes g, Bytes b) {
  const auto part = [](Bytes x, int32_t weight) HWY_ATTR { return hn::Mul(hn::PromoteTo(kI, x), hn::Set(kI, weight)); };
  const auto sum = hn::Add(hn::Add(part(r, 19595), part(g, 38470)), hn::Add(part(b, 7471), hn::Set(kI, 0x8000)));
  return hn::ShiftRight<16>(sum);
}

// Calls f(at, n) for whole vectors, n being their length, and once for the `n` elements that are left.
template <class Body>
HWY_INLINE void ForVectors(size_t lanes, size_t count, Body f) {
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) f(i, lanes);
  if (i < count) f(i, count - i);
}

// n, which is below Lanes(d): said so that compilers see it, also where vectors have one lane and nothing is ever left.
template <class D>
HWY_INLINE size_t Some([[maybe_unused]] D d, size_t n) { return n % hn::MaxLanes(d); }

template <class D>
HWY_INLINE hn::Vec<D> LoadSome(D d, const uint8_t* from, size_t n) {
  if (n == hn::Lanes(d)) return hn::LoadU(d, from);
  HWY_ALIGN uint8_t some[hn::MaxLanes(d)] = {};
  std::memcpy(some, from, Some(d, n));
  return hn::Load(d, some);
}
template <class D>
HWY_INLINE void StoreSome(D d, hn::Vec<D> x, uint8_t* to, size_t n) {
  if (n == hn::Lanes(d)) return hn::StoreU(x, d, to);
  HWY_ALIGN uint8_t some[hn::MaxLanes(d)];
  hn::Store(x, d, some);
  std::memcpy(to, some, Some(d, n));
}

HWY_INLINE void LoadPixels(const uint8_t* from, size_t n, Bytes& r, Bytes& g, Bytes& b) {
  if (n == hn::Lanes(kB)) return hn::LoadInterleaved3(kB, from, r, g, b);
  HWY_ALIGN uint8_t some[3 * hn::MaxLanes(kB)] = {};
  std::memcpy(some, from, 3 * Some(kB, n));
  hn::LoadInterleaved3(kB, some, r, g, b);
}
HWY_INLINE void StorePixels(Bytes r, Bytes g, Bytes b, uint8_t* to, size_t n) {
  if (n == hn::Lanes(kB)) return hn::StoreInterleaved3(r, g, b, kB, to);
  HWY_ALIGN uint8_t some[3 * hn::MaxLanes(kB)];
  hn::StoreInterleaved3(r, g, b, kB, some);
  std::memcpy(to, some, 3 * Some(kB, n));
}

void BlendTwo(const uint8_t* from, const uint8_t* to, float share, size_t samples, uint8_t* out) {
  const auto s = hn::Set(kF, share);
  ForVectors(hn::Lanes(kB), samples, [&](size_t i, size_t n) HWY_ATTR {
    StoreSome(kB, BlendLanes(ToFloat(LoadSome(kB, from + i, n)), ToFloat(LoadSome(kB, to + i, n)), s), out + i, n);
  });
}

void BlendOne(uint8_t from, float share, size_t samples, uint8_t* to) {
  const auto s = hn::Set(kF, share), f = hn::Set(kF, from);
  ForVectors(hn::Lanes(kB), samples, [&](size_t i, size_t n) HWY_ATTR {
    StoreSome(kB, BlendLanes(f, ToFloat(LoadSome(kB, to + i, n)), s), to + i, n);
  });
}

void BlendGrey(float share, size_t count, uint8_t* pixels) {
  const auto s = hn::Set(kF, share);
  ForVectors(hn::Lanes(kB), count, [&](size_t i, size_t n) HWY_ATTR {
    Bytes r, g, b;
    LoadPixels(pixels + 3 * i, n, r, g, b);
    const auto grey = hn::ConvertTo(kF, GreyOf(r, g, b));
    StorePixels(BlendLanes(grey, ToFloat(r), s), BlendLanes(grey, ToFloat(g), s), BlendLanes(grey, ToFloat(b), s), pixels + 3 * i, n);
  });
}

uint64_t SumGrey(const uint8_t* pixels, size_t count) {
  uint64_t total = 0;
  constexpr size_t kBlock = size_t{1} << 16;  // pixels whose sum a lane holds
  for (size_t begin = 0; begin < count; begin += kBlock) {
    auto sum = hn::Zero(kI);
    ForVectors(hn::Lanes(kB), std::min(kBlock, count - begin), [&](size_t i, size_t n) HWY_ATTR {
      Bytes r, g, b;
      LoadPixels(pixels + 3 * (begin + i), n, r, g, b);  // zeros behind the end, which are black
      sum = hn::Add(sum, GreyOf(r, g, b));
    });
    total += static_cast<uint64_t>(hn::GetLane(hn::SumOfLanes(kI, sum)));
  }
  return total;
}

SampleRange Range(const uint8_t* pixels, size_t count, uint32_t channels) {
  const hn::ScalableTag<uint8_t> d;
  SampleRange range = {{255, 255, 255}, {0, 0, 0}};
  const size_t lanes = hn::Lanes(d), whole = count / lanes * lanes;
  const auto reduce = [&](size_t c, auto low, auto high) HWY_ATTR {
    HWY_ALIGN uint8_t all[2 * hn::MaxLanes(d)];
    hn::Store(low, d, all);
    hn::Store(high, d, all + lanes);
    range.low[c] = *std::min_element(all, all + lanes);
    range.high[c] = *std::max_element(all + lanes, all + 2 * lanes);
  };
  auto low = hn::Set(d, uint8_t{255}), high = hn::Zero(d);
  if (channels == 1) {
    for (size_t i = 0; i < whole; i += lanes) {
      const auto x = hn::LoadU(d, pixels + i);
      low = hn::Min(low, x);
      high = hn::Max(high, x);
    }
    reduce(0, low, high);
  } else {
    auto low1 = low, low2 = low, high1 = high, high2 = high;
    for (size_t i = 0; i < whole; i += lanes) {
      hn::Vec<decltype(d)> r, g, b;
      hn::LoadInterleaved3(d, pixels + 3 * i, r, g, b);
      low = hn::Min(low, r), low1 = hn::Min(low1, g), low2 = hn::Min(low2, b);
      high = hn::Max(high, r), high1 = hn::Max(high1, g), high2 = hn::Max(high2, b);
    }
    reduce(0, low, high);
    reduce(1, low1, high1);
    reduce(2, low2, high2);
  }
  for (size_t i = whole * channels; i < count * channels; ++i) {
    range.low[i % channels] = std::min(range.low[i % channels], pixels[i]);
    range.high[i % channels] = std::max(range.high[i % channels], pixels[i]);
  }
  return range;
}

void Smooth(const uint8_t* above, const uint8_t* middle, const uint8_t* below, size_t samples, uint32_t channels, uint8_t* out) {
  const hn::ScalableTag<uint16_t> d;
  const hn::Rebind<uint8_t, decltype(d)> db;
  ForVectors(hn::Lanes(d), samples, [&](size_t i, size_t n) HWY_ATTR {
    const auto load = [&](const uint8_t* row) HWY_ATTR { return hn::PromoteTo(d, LoadSome(db, row, n)); };
    const auto three = [&](const uint8_t* row) HWY_ATTR { return hn::Add(hn::Add(load(row - channels), load(row)), load(row + channels)); };
    const auto nine = hn::Add(hn::Add(three(above + i), three(below + i)), three(middle + i));
    const auto sum = hn::Add(nine, hn::ShiftLeft<2>(load(middle + i)));
    // (sum + 6) / 13: the nearest, for 13 is odd; exact up to 13 * 255.
    const auto mean = hn::MulHigh(hn::Add(sum, hn::Set(d, uint16_t{6})), hn::Set(d, uint16_t{5042}));
    StoreSome(db, hn::DemoteTo(db, hn::BitCast(hn::RebindToSigned<decltype(d)>(), mean)), out + i, n);
  });
}

// -- Hue --------------------------------------------------------------------------------------

// The whole quotient of whole numbers below 2^24 that is at most 256: a rounded quotient does not reach the next number.
HWY_INLINE Ints Quotient(Ints a, Ints b) { return hn::ConvertTo(kI, hn::Div(hn::ConvertTo(kF, a), hn::ConvertTo(kF, b))); }

// Where 255 t / (6 d), t / d being the hue in sixths of the circle, is a whole number, Pillow's float32 steps
// may end just below it; these are its steps.
int32_t HueOnTheEdge(int32_t t, int32_t d) {
  const int32_t sixth = t / d;  // of the circle: hue rises with the middle sample in the even ones
  const int32_t from_top = sixth % 2 == 0 ? d - (t - sixth * d) : t - sixth * d;
  const float share = static_cast<float>(from_top) / static_cast<float>(d);
  const float hue = sixth == 5 ? share - 1.0f : sixth % 2 == 0 ? static_cast<float>(sixth + 1) - share : static_cast<float>(sixth) + share;
  const double turn = static_cast<double>(hue) / 6.0 + 1.0;
  return static_cast<int32_t>(static_cast<float>(turn - (turn >= 1 ? 1 : 0)) * 255.0);
}

void Hue(uint8_t shift, size_t count, uint8_t* pixels) {
  const auto zero = hn::Zero(kI), one = hn::Set(kI, 1), top = hn::Set(kI, 255);
  ForVectors(hn::Lanes(kB), count, [&](size_t i, size_t n) HWY_ATTR {
    Bytes r8, g8, b8;
    LoadPixels(pixels + 3 * i, n, r8, g8, b8);
    const Ints r = hn::PromoteTo(kI, r8), g = hn::PromoteTo(kI, g8), b = hn::PromoteTo(kI, b8);

    const Ints value = hn::Max(r, hn::Max(g, b)), d = hn::Sub(value, hn::Min(r, hn::Min(g, b)));
    const Ints some = hn::Max(d, one);  // grey has no hue: 0, for t is 0
    const auto red = hn::Eq(r, value), green = hn::Eq(g, value);
    const Ints difference = hn::IfThenElse(red, hn::Sub(g, b), hn::IfThenElse(green, hn::Sub(b, r), hn::Sub(r, g)));
    const Ints twice = hn::Add(d, d);
    Ints t = hn::Add(difference, hn::IfThenElse(red, zero, hn::IfThenElse(green, twice, hn::Add(twice, twice))));
    t = hn::IfThenElse(hn::Lt(t, zero), hn::Add(t, hn::Mul(d, hn::Set(kI, 6))), t);
    const Ints scaled = hn::Mul(t, hn::Set(kI, 255)), whole = hn::Mul(some, hn::Set(kI, 6));
    Ints hue = Quotient(scaled, whole);
    // On the edge, but for the thirds of the circle, which are exact.
    const auto third = hn::Or(hn::Eq(hue, zero), hn::Or(hn::Eq(hue, hn::Set(kI, 85)), hn::Eq(hue, hn::Set(kI, 170))));
    const auto edge = hn::AndNot(third, hn::Eq(hn::Mul(hue, whole), scaled));
    if (HWY_UNLIKELY(!hn::AllFalse(kI, edge))) {
      HWY_ALIGN int32_t ts[hn::MaxLanes(kI)], ds[hn::MaxLanes(kI)], hues[hn::MaxLanes(kI)];
      hn::Store(t, kI, ts);
      hn::Store(some, kI, ds);
      hn::Store(hue, kI, hues);
      for (size_t j = 0; j < hn::Lanes(kI); ++j) {
        if (hues[j] * 6 * ds[j] == ts[j] * 255) hues[j] = HueOnTheEdge(ts[j], ds[j]);
      }
      hue = hn::Load(kI, hues);
    }
    const Ints saturation = Quotient(hn::Mul(d, top), hn::Max(value, one));

    // Back: the sixth of the circle and how far into it, in 85ths, since 6 hue / 255 = 2 hue / 85.
    hue = hn::And(hn::Add(hue, hn::Set(kI, shift)), top);
    const Ints doubled = hn::Add(hue, hue), sixth = hn::ShiftRight<15>(hn::Mul(doubled, hn::Set(kI, 386)));
    const Ints part = hn::Sub(doubled, hn::Mul(sixth, hn::Set(kI, 85)));
    const auto odd = hn::Ne(hn::And(sixth, one), zero);
    // value * (1 - saturation * share) rounded, share in 85ths: `low` with all of it, `between` with what the place in the sixth takes.
    const auto less = [&](Ints share) HWY_ATTR {
      const Ints all = hn::Set(kI, 255 * 85);
      const Ints product = hn::Mul(value, hn::Sub(all, hn::Mul(saturation, share)));
      return Quotient(hn::Add(hn::Add(product, product), all), hn::Add(all, all));
    };
    const Ints low = less(hn::Set(kI, 85));
    const Ints between = less(hn::IfThenElse(odd, part, hn::Sub(hn::Set(kI, 85), part)));
    // The highest sample is red in sixths 5, 0 (and 6, which is 0), green in 1, 2, blue in 3, 4; the middle one lies beside it.
    const auto is = [&](int32_t s) HWY_ATTR { return hn::Eq(sixth, hn::Set(kI, s)); };
    const auto s0 = hn::Or(is(0), is(6)), s1 = is(1), s2 = is(2), s3 = is(3), s4 = is(4), s5 = is(5);
    const auto pick = [&](auto high, auto middle) HWY_ATTR { return hn::IfThenElse(high, value, hn::IfThenElse(middle, between, low)); };
    StorePixels(hn::DemoteTo(kB, pick(hn::Or(s0, s5), hn::Or(s1, s4))), hn::DemoteTo(kB, pick(hn::Or(s1, s2), hn::Or(s0, s3))),
                hn::DemoteTo(kB, pick(hn::Or(s3, s4), hn::Or(s2, s5))), pixels + 3 * i, n);
  });
}

}  // namespace fkdb::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fkdb {

HWY_EXPORT(BlendTwo);
HWY_EXPORT(BlendOne);
HWY_EXPORT(BlendGrey);
HWY_EXPORT(SumGrey);
HWY_EXPORT(Range);
HWY_EXPORT(Smooth);
HWY_EXPORT(Hue);

void Blend(const uint8_t* from, const uint8_t* to, float share, size_t samples, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(BlendTwo)(from, to, share, samples, out);
}
void BlendFromValue(uint8_t from, float share, size_t samples, uint8_t* to) {
  HWY_DYNAMIC_DISPATCH(BlendOne)(from, share, samples, to);
}
void BlendFromGrey(float share, size_t count, uint8_t* pixels) { HWY_DYNAMIC_DISPATCH(BlendGrey)(share, count, pixels); }
uint64_t SumOfGrey(const uint8_t* pixels, size_t count) { return HWY_DYNAMIC_DISPATCH(SumGrey)(pixels, count); }
void ShiftHue(uint8_t shift, size_t count, uint8_t* pixels) { HWY_DYNAMIC_DISPATCH(Hue)(shift, count, pixels); }
SampleRange RangeOf(const uint8_t* pixels, size_t count, uint32_t channels) {
  return HWY_DYNAMIC_DISPATCH(Range)(pixels, count, channels);
}
void SmoothRow(const uint8_t* above, const uint8_t* middle, const uint8_t* below, size_t samples, uint32_t channels, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(Smooth)(above, middle, below, samples, channels, out);
}

}  // namespace fkdb
#endif
