// SPDX-License-Identifier: Apache-2.0
// A box blur down the columns is the same arithmetic in every column, which vectors like. Along the rows
// it is done by turning the image, as a matrix of bytes (height, width * channels), on its side.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "image/blur.cc"
#define HWY_WANT_AVX3_DL
#include <hwy/foreach_target.h>
// foreach_target.h comes before the code it includes again and again.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "image/blur.h"

// Once for all instruction sets.
#ifndef FKDB_IMAGE_BLUR_BOX_
#define FKDB_IMAGE_BLUR_BOX_
namespace fkdb {
struct Box {
  uint32_t radius;         // whole samples on either side
  uint32_t inside, edge;   // weights of a sample within the radius and of the one behind it, of 2^24 in all
};
}  // namespace fkdb
#endif

HWY_BEFORE_NAMESPACE();
namespace fkdb::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// As many columns as D has lanes, of `lines` lines of `stride` bytes: a running sum goes down, lines behind the ends repeat the last.
template <class D>
HWY_INLINE void BlurColumns(D d, const Box& box, const uint8_t* in, size_t stride, int64_t lines, uint8_t* out) {
  const hn::Rebind<uint8_t, D> db;
  const int64_t r = box.radius;
  const auto line = [&](int64_t y) HWY_ATTR {
    return hn::PromoteTo(d, hn::LoadU(db, in + static_cast<size_t>(std::clamp<int64_t>(y, 0, lines - 1)) * stride));
  };
  const auto inside = hn::Set(d, box.inside), edge = hn::Set(d, box.edge), half = hn::Set(d, uint32_t{1} << 23);
  auto before = line(0);
  auto sum = hn::Mul(before, hn::Set(d, box.radius + 1));
  for (int64_t y = 1; y <= std::min(r, lines - 1); ++y) sum = hn::Add(sum, line(y));
  if (r >= lines) sum = hn::Add(sum, hn::Mul(line(lines - 1), hn::Set(d, static_cast<uint32_t>(r - lines + 1))));
  for (int64_t y = 0; y < lines; ++y) {
    const auto behind = line(y + r + 1);
    const auto weighed = hn::Add(hn::Mul(sum, inside), hn::Mul(hn::Add(before, behind), edge));
    hn::StoreU(hn::DemoteTo(db, hn::BitCast(hn::RebindToSigned<D>(), hn::ShiftRight<24>(hn::Add(weighed, half)))), db,
               out + static_cast<size_t>(y) * stride);
    before = line(y - r);
    sum = hn::Add(sum, hn::Sub(behind, before));
  }
}

// `lines` lines of `stride` bytes; `out` is not `in`. The last vector of a line may do again what the one before it did.
void BoxDown(const Box& box, const uint8_t* in, size_t stride, size_t lines, uint8_t* out) {
  const hn::ScalableTag<uint32_t> d;
  const hn::CappedTag<uint32_t, 1> one;
  const auto count = static_cast<int64_t>(lines);
  const size_t lanes = hn::Lanes(d);
  if (stride < lanes) {
    for (size_t x = 0; x < stride; ++x) BlurColumns(one, box, in + x, stride, count, out + x);
    return;
  }
  for (size_t x = 0; x + lanes <= stride; x += lanes) BlurColumns(d, box, in + x, stride, count, out + x);
  const size_t last = stride - lanes;
  if (stride % lanes != 0) BlurColumns(d, box, in + last, stride, count, out + last);
}

// in (rows, columns) -> out (columns, rows).
void Turn(const uint8_t* in, size_t rows, size_t columns, uint8_t* out) {
#if HWY_TARGET == HWY_SCALAR
  const size_t whole_rows = 0, whole_columns = 0;
#else
  const hn::FixedTag<uint8_t, 16> d;
  const size_t whole_rows = rows / 16 * 16, whole_columns = columns / 16 * 16;
  for (size_t y = 0; y < whole_rows; y += 16) {
    for (size_t x = 0; x < whole_columns; x += 16) {
      hn::Vec<decltype(d)> a[16], b[16];
      for (size_t i = 0; i < 16; ++i) a[i] = hn::LoadU(d, in + (y + i) * columns + x);
      const auto shuffle = [&](const auto* from, auto* to) HWY_ATTR {  // four of these exchange rows and columns
        for (size_t i = 0; i < 8; ++i) {
          to[2 * i] = hn::InterleaveLower(d, from[i], from[i + 8]);
          to[2 * i + 1] = hn::InterleaveUpper(d, from[i], from[i + 8]);
        }
      };
      shuffle(a, b);
      shuffle(b, a);
      shuffle(a, b);
      shuffle(b, a);
      for (size_t i = 0; i < 16; ++i) hn::StoreU(a[i], d, out + (x + i) * rows + y);
    }
  }
#endif
  for (size_t y = 0; y < rows; ++y) {
    for (size_t x = y < whole_rows ? whole_columns : 0; x < columns; ++x) out[x * rows + y] = in[y * columns + x];
  }
}

}  // namespace fkdb::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fkdb {

HWY_EXPORT(BoxDown);
HWY_EXPORT(Turn);

namespace {

constexpr float kPasses = 3;

// The box whose blur, done three times, has the deviation sigma (Gwosdek et al., SSVM 2011: equations 7, 11, 14). The steps are Pillow's,
// rounded to float32 where its are.
Box BoxOf(float sigma) {
  const float variance = sigma * sigma / kPasses;
  const auto length = static_cast<float>(std::sqrt(12.0 * static_cast<double>(variance) + 1.0));
  const auto whole = static_cast<float>(std::floor((static_cast<double>(length) - 1.0) / 2.0));
  float rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
  rest /= 6 * (variance - (whole + 1) * (whole + 1));
  const float radius = whole + rest;
  Box box;
  box.radius = static_cast<uint32_t>(radius);
  box.inside = static_cast<uint32_t>(0x1p24f / (radius * 2 + 1));
  box.edge = ((1u << 24) - (box.radius * 2 + 1) * box.inside) / 2;
  return box;
}

}  // namespace

void GaussianBlur::Run(float sigma, uint32_t height, uint32_t width, uint32_t channels, uint8_t* pixels) {
  if (sigma == 0) return;
  const Box box = BoxOf(sigma);
  const size_t row = size_t{width} * channels, size = height * row;
  turned_.resize(std::max(turned_.size(), size));
  passed_.resize(std::max(passed_.size(), size));
  const auto pass = [&](const uint8_t* in, size_t stride, size_t lines, uint8_t* out) { HWY_DYNAMIC_DISPATCH(BoxDown)(box, in, stride, lines, out); };
  HWY_DYNAMIC_DISPATCH(Turn)(pixels, height, row, turned_.data());
  const size_t column = size_t{height} * channels;  // on its side a line is one column of the image, all of its channels
  pass(turned_.data(), column, width, passed_.data());
  pass(passed_.data(), column, width, turned_.data());
  pass(turned_.data(), column, width, passed_.data());
  HWY_DYNAMIC_DISPATCH(Turn)(passed_.data(), row, height, turned_.data());
  pass(turned_.data(), row, height, passed_.data());
  pass(passed_.data(), row, height, turned_.data());
  pass(turned_.data(), row, height, pixels);
}

}  // namespace fkdb
#endif
