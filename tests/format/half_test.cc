// SPDX-License-Identifier: Apache-2.0
#include "format/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace fkdb {
namespace {

TEST(Half, EveryHalfSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = FloatFromHalf(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(FloatFromHalf(HalfFromFloat(value)))) << bits;
    } else {
      EXPECT_EQ(HalfFromFloat(value), half) << bits;
    }
  }
}

TEST(Half, KnownValues) {
  EXPECT_EQ(FloatFromHalf(0x3c00), 1.0f);
  EXPECT_EQ(FloatFromHalf(0x0001), 0x1p-24f);
  EXPECT_EQ(FloatFromHalf(0x7bff), 65504.0f);
  EXPECT_EQ(HalfFromFloat(65519.9f), 0x7bff);
  EXPECT_EQ(HalfFromFloat(65520.0f), 0x7c00);
  EXPECT_EQ(HalfFromFloat(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(HalfFromFloat(0x1p-26f), 0x0000);
  EXPECT_EQ(HalfFromFloat(0x1p-25f), 0x0000);  // halfway between 0 and the smallest: to even
  EXPECT_EQ(HalfFromFloat(0x1.000002p-25f), 0x0001);
}

// The nearest half, found by search over its neighbours; on a tie the even one.
TEST(Half, RoundsToNearestEven) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200000; ++i) {
    const float value = std::ldexp(static_cast<float>(random() % 1000003) / 1000003.0f, static_cast<int>(random() % 40) - 26);
    const uint16_t half = HalfFromFloat(value);
    if (half >= 0x7bff) continue;
    const double error = std::fabs(double{FloatFromHalf(half)} - value);
    for (const int step : {-1, 1}) {
      if (half == 0 && step < 0) continue;
      const double other = std::fabs(double{FloatFromHalf(static_cast<uint16_t>(half + step))} - value);
      ASSERT_LE(error, other) << value;
      if (error == other) {
        ASSERT_EQ(half % 2, 0) << value;
      }
    }
  }
}

}  // namespace
}  // namespace fkdb
