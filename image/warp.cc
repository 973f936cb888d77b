// SPDX-License-Identifier: Apache-2.0
#include "image/warp.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "image/trigonometry.h"

namespace fkdb {
namespace {

constexpr int64_t kOne = 1 << 16;  // positions are in 16.16 fixed point

int64_t Fixed(double x) { return static_cast<int64_t>(std::floor(x * 65536.0 + 0.5)); }

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return quotient * b != a && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

// A row's positions along one axis of the input: start + x step, in fixed point.
struct Walk {
  int64_t start, step;

  int64_t at(int64_t x) const { return (start + x * step) >> 16; }
  // Narrows [*begin, *end) to the x whose position lies in [0, size); where there are none, *begin >= *end.
  void Clip(int64_t size, int64_t* begin, int64_t* end) const {
    const int64_t limit = size * kOne;
    if (step == 0) {
      if (start < 0 || start >= limit) *end = *begin;
      return;
    }
    // start + x step >= 0 and <= limit - 1, the second turned round where step is negative.
    const int64_t low = step > 0 ? -start : start - (limit - 1), high = step > 0 ? limit - 1 - start : start;
    const int64_t size_of_step = std::abs(step);
    *begin = std::max(*begin, -FloorDivide(-low, size_of_step));
    *end = std::min(*end, FloorDivide(high, size_of_step) + 1);
  }
};

// Most pixels of three samples are copied as four bytes, of which the next pixel, copied after it, replaces the last.
// Behind the last pixel of the output there is no room for that; the input has it.
template <uint32_t kChannels>
void CopyPixel(const uint8_t* from, bool last, uint8_t* to) {
  if (kChannels == 1) {
    *to = *from;
  } else if (last) {
    std::memcpy(to, from, 3);
  } else {
    std::memcpy(to, from, 4);
  }
}

// Pixels [begin, end) of a row, each from where the walks are.
template <uint32_t kChannels>
void GatherRow(const uint8_t* in, size_t in_width, Walk column, Walk row, int64_t begin, int64_t end, bool last, uint8_t* out) {
  int64_t xx = column.start + begin * column.step, yy = row.start + begin * row.step;
  for (int64_t x = begin; x < end; ++x, xx += column.step, yy += row.step) {
    const uint8_t* from = in + (static_cast<size_t>(yy >> 16) * in_width + static_cast<size_t>(xx >> 16)) * kChannels;
    CopyPixel<kChannels>(from, last && x + 1 == end, out + static_cast<size_t>(x) * kChannels);
  }
}

// Pixels (height, width) whose pixel (y, x) is `first` + y down + x right, in bytes; in bands of columns, so that what is read
// across stays at hand.
template <uint32_t kChannels>
void CopyTurned(const uint8_t* first, int64_t down, int64_t right, size_t height, size_t width, uint8_t* out) {
  constexpr size_t kBand = 32;
  for (size_t begin = 0; begin < width; begin += kBand) {
    const size_t end = std::min(width, begin + kBand);
    for (size_t y = 0; y < height; ++y) {
      const uint8_t* from = first + static_cast<int64_t>(y) * down + static_cast<int64_t>(begin) * right;
      // The byte behind a band's last pixel is another band's.
      for (size_t x = begin; x < end; ++x, from += right) CopyPixel<kChannels>(from, x + 1 == end, out + (y * width + x) * kChannels);
    }
  }
}

// As Python does: with the sign of the divisor.
double Modulo360(double degrees) {
  const double rest = std::fmod(degrees, 360.0);
  return rest < 0 ? rest + 360.0 : rest;
}

double Round15(double x) { return std::nearbyint(x * 1e15) / 1e15; }

}  // namespace

const uint8_t* Warper::Copy(const uint8_t* pixels) {
  const size_t size = size_t{height_} * width_ * channels_;
  copy_.resize(size + 1);
  std::memcpy(copy_.data(), pixels, size);
  return copy_.data();
}

void Warper::Rotate(float degrees, uint8_t* pixels) {
  const double angle = Modulo360(degrees);
  if (angle == 0 || angle == 180) return Turn(angle == 0 ? 0 : 2, pixels);
  if ((angle == 90 || angle == 270) && height_ == width_) return Turn(angle == 90 ? 1 : 3, pixels);
  const auto [sine, cosine] = PortableSineCosine(-Radians(angle));
  const double c = Round15(cosine), s = Round15(sine), cx = width_ / 2.0, cy = height_ / 2.0;
  Affine({c, s, c * -cx + s * -cy + cx, -s, c, -s * -cx + c * -cy + cy}, pixels);
}

void Warper::ShearX(float degrees, uint8_t* pixels) {
  const auto [sine, cosine] = PortableSineCosine(Radians(degrees));
  Affine({1, sine / cosine, 0, 0, 1, 0}, pixels);
}

void Warper::ShearY(float degrees, uint8_t* pixels) {
  const auto [sine, cosine] = PortableSineCosine(Radians(degrees));
  Affine({1, 0, 0, sine / cosine, 1, 0}, pixels);
}

void Warper::Translate(float x, float y, uint8_t* pixels) {
  const auto whole = [](float shift, uint32_t size) {
    const double limit = size;
    return static_cast<int64_t>(std::clamp<double>(shift, -limit, limit));
  };
  Move(whole(x, width_), whole(y, height_), pixels);
}

void Warper::Move(int64_t right, int64_t down, uint8_t* pixels) {
  if (right == 0 && down == 0) return;
  const size_t row = size_t{width_} * channels_, shift = static_cast<size_t>(std::abs(right)) * channels_, kept = row - shift;
  for (int64_t i = 0; i < height_; ++i) {
    const int64_t y = down > 0 ? height_ - 1 - i : i, from = y - down;  // in an order that reads a row before it is written
    uint8_t* out = pixels + static_cast<size_t>(y) * row;
    if (from < 0 || from >= height_) {
      std::memset(out, 0, row);
      continue;
    }
    const uint8_t* in = pixels + static_cast<size_t>(from) * row;
    std::memmove(out + (right > 0 ? shift : 0), in + (right > 0 ? 0 : shift), kept);
    std::memset(out + (right > 0 ? 0 : kept), 0, shift);
  }
}

void Warper::Turn(int quarters, uint8_t* pixels) {
  if (quarters == 0) return;
  const uint8_t* in = Copy(pixels);
  const auto c = static_cast<int64_t>(channels_), row = width_ * c;
  const int64_t last_row = (height_ - int64_t{1}) * row, last_column = (width_ - int64_t{1}) * c;
  const int64_t first = quarters == 2 ? last_row + last_column : quarters == 1 ? last_column : last_row;
  const int64_t down = quarters == 2 ? -row : quarters == 1 ? -c : c, right = quarters == 2 ? -c : quarters == 1 ? row : -row;
  (channels_ == 1 ? CopyTurned<1> : CopyTurned<3>)(in + first, down, right, height_, width_, pixels);
}

void Warper::Affine(const std::array<double, 6>& a, uint8_t* pixels) {
  const int64_t height = height_, width = width_;
  if (a[1] == 0 && a[3] == 0 && a[0] == 1 && a[4] == 1 && a[2] == 0 && a[5] == 0) return;
  const uint8_t* in = Copy(pixels);
  const size_t c = channels_, row_bytes = width_ * c;
  const auto fits = [&](double x, double y) {
    return std::fabs(x * a[0] + y * a[1] + a[2]) < 32768.0 && std::fabs(x * a[3] + y * a[4] + a[5]) < 32768.0;
  };
  const auto w = static_cast<double>(width), h = static_cast<double>(height);
  if (!(fits(0, 0) && fits(w, h) && fits(0, h) && fits(w, 0))) {  // too far for 16.16: in double
    for (int64_t y = 0; y < height; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        const double xin = static_cast<double>(x) + 0.5, yin = static_cast<double>(y) + 0.5;
        const double column = a[0] * xin + a[1] * yin + a[2], row = a[3] * xin + a[4] * yin + a[5];
        uint8_t* to = pixels + static_cast<size_t>(y) * row_bytes + static_cast<size_t>(x) * c;
        if (column < 0 || column >= w || row < 0 || row >= h) {
          std::memset(to, 0, c);
        } else {
          std::memcpy(to, in + static_cast<size_t>(row) * row_bytes + static_cast<size_t>(column) * c, c);
        }
      }
    }
    return;
  }
  Walk column = {Fixed(a[2] + a[0] * 0.5 + a[1] * 0.5), Fixed(a[0])}, row = {Fixed(a[5] + a[3] * 0.5 + a[4] * 0.5), Fixed(a[3])};
  const int64_t next_column = Fixed(a[1]), next_row = Fixed(a[4]);
  for (int64_t y = 0; y < height; ++y, column.start += next_column, row.start += next_row) {
    uint8_t* out = pixels + static_cast<size_t>(y) * row_bytes;
    int64_t begin = 0, end = width;
    column.Clip(width, &begin, &end);
    row.Clip(height, &begin, &end);
    if (begin >= end) begin = end = 0;
    if (column.step == kOne) {  // a shear: stretches of a row of the input as they are
      for (int64_t x = begin; x < end;) {
        int64_t stop = end;
        if (row.step != 0) {
          const int64_t here = row.at(x), target = row.step > 0 ? (here + 1) * kOne - row.start : row.start - here * kOne + 1;
          stop = std::min(end, -FloorDivide(-target, std::abs(row.step)));
        }
        std::memcpy(out + static_cast<size_t>(x) * c, in + static_cast<size_t>(row.at(x)) * row_bytes + static_cast<size_t>(column.at(x)) * c,
                    static_cast<size_t>(stop - x) * c);
        x = stop;
      }
    } else {
      (c == 1 ? GatherRow<1> : GatherRow<3>)(in, width_, column, row, begin, end, y + 1 == height && end == width, out);
    }
    std::memset(out, 0, static_cast<size_t>(begin) * c);
    std::memset(out + static_cast<size_t>(end) * c, 0, static_cast<size_t>(width - end) * c);
  }
}

}  // namespace fkdb
