// SPDX-License-Identifier: Apache-2.0
// What each input position weighs at an output position of Pillow's antialiased resampling along one axis: its operations
// in double, in its order, for CPU and GPU. Neither may contract them to fused multiply-adds.
#pragma once

#include <cstdint>

#include "format/host_device.h"

namespace fkdb {

constexpr int kWeightBits = 22;  // after the point: 32 - 8 for the sample - 2 for overshoot

// The positions that an output position is averaged of.
struct ResampleWindow {
  uint32_t first, count;
  double center;
};

class ResampleAxis {
 public:
  // `in` positions to `out`.
  FKDB_HOST_DEVICE ResampleAxis(uint32_t in, uint32_t out, bool cubic) : in_(in), scale_(static_cast<double>(in) / out), cubic_(cubic) {
    const double stretch = scale_ > 1 ? scale_ : 1;  // antialiasing: shrinking widens the filter
    support_ = (cubic ? 2 : 1) * stretch;
    inverse_ = 1 / stretch;
  }

  // At most so many positions on either side of a window's center.
  FKDB_HOST_DEVICE double support() const { return support_; }

  FKDB_HOST_DEVICE ResampleWindow Window(uint32_t x) const {
    const double center = (x + 0.5) * scale_;
    const auto low = static_cast<int64_t>(center - support_ + 0.5), high = static_cast<int64_t>(center + support_ + 0.5);
    const auto first = static_cast<uint32_t>(low > 0 ? low : 0);
    return {first, static_cast<uint32_t>(high < in_ ? high : in_) - first, center};
  }
  // The weight of its i-th position; those of a window are divided by their sum, which is taken in their order.
  FKDB_HOST_DEVICE double Weight(const ResampleWindow& window, uint32_t i) const {
    const double distance = (i + window.first - window.center + 0.5) * inverse_;
    return cubic_ ? Cubic(distance) : Triangle(distance);
  }
  // In fixed point.
  FKDB_HOST_DEVICE static int32_t Rounded(double weight, double sum) {
    const double w = (sum != 0 ? weight / sum : weight) * (1 << kWeightBits);
    return static_cast<int32_t>(w < 0 ? w - 0.5 : w + 0.5);
  }
  // A sum of sample x weight, begun with kHalf, as a sample.
  static constexpr int32_t kHalf = 1 << (kWeightBits - 1);
  FKDB_HOST_DEVICE static uint8_t Sample(int32_t sum) {
    const int32_t sample = sum >> kWeightBits;
    return static_cast<uint8_t>(sample < 0 ? 0 : sample > 255 ? 255 : sample);
  }

 private:
  FKDB_HOST_DEVICE static double Magnitude(double x) { return x < 0 ? -x : x; }
  FKDB_HOST_DEVICE static double Triangle(double x) {
    x = Magnitude(x);
    return x < 1 ? 1 - x : 0;
  }
  // Keys' cubic with a = -1/2.
  FKDB_HOST_DEVICE static double Cubic(double x) {
    constexpr double a = -0.5;
    x = Magnitude(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
  }

  int64_t in_;
  double scale_, support_, inverse_;
  bool cubic_;
};

}  // namespace fkdb
