// SPDX-License-Identifier: Apache-2.0
#include "format/crop_sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "format/crop_lanes.h"

namespace fkdb {
namespace {

TEST(CropSampler, FollowsTheSamplingRule) {
  const auto sampler = CropSampler::Make({});
  ASSERT_TRUE(sampler);
  double area = 0, log_ratio = 0, flips = 0;
  constexpr int kTrials = 20000;
  for (int i = 0; i < kTrials; ++i) {
    const SampledCrop crop = sampler->Sample(1, 2, static_cast<uint32_t>(i), 1000, 1000);
    const PixelBox& b = crop.box;
    ASSERT_LE(b.top + b.height, 1000u);
    ASSERT_LE(b.left + b.width, 1000u);
    const double share = b.height * 1e-6 * b.width, ratio = static_cast<double>(b.width) / b.height;
    ASSERT_GE(share, 0.079);
    ASSERT_LE(ratio, 4. / 3 + 0.01);
    ASSERT_GE(ratio, 3. / 4 - 0.01);
    area += share;
    log_ratio += std::log(ratio);
    flips += crop.flip;
  }
  // On a square image large boxes fit only when nearly square, and are drawn again: the mean share
  // lies below (0.08 + 1) / 2. torchvision's RandomResizedCrop.get_params gave 0.478 over 20,000.
  EXPECT_NEAR(area / kTrials, 0.478, 0.006);
  EXPECT_NEAR(log_ratio / kTrials, 0, 0.005);
  EXPECT_NEAR(flips / kTrials, 0.5, 0.02);
}

TEST(CropSampler, FallsBackToTheCentre) {
  CropSampling sampling;
  sampling.scale = {5, 5};  // never fits
  const auto sampler = CropSampler::Make(sampling);
  ASSERT_TRUE(sampler);
  EXPECT_EQ(sampler->Sample(1, 2, 3, 100, 90).box, (PixelBox{0, 0, 90, 100}));
  EXPECT_EQ(sampler->Sample(1, 2, 3, 200, 90).box, (PixelBox{0, 40, 90, 120}));   // too wide: 90 * 4/3
  EXPECT_EQ(sampler->Sample(1, 2, 3, 60, 200).box, (PixelBox{60, 0, 80, 60}));    // too tall: 60 / (3/4)
  EXPECT_EQ(sampler->Sample(1, 2, 3, 1, 1).box, (PixelBox{0, 0, 1, 1}));
}

// The crops that a seed stands for, for ever: a label set's digest holds them.
TEST(CropSampler, NeverChanges) {
  const auto sampler = CropSampler::Make({});
  ASSERT_TRUE(sampler);
  const SampledCrop a = sampler->Sample(0, 0x0123456789abcdef, 0, 500, 375);
  const SampledCrop b = sampler->Sample(42, 7, 199, 28, 28);
  EXPECT_EQ(a.box, (PixelBox{5, 15, 249, 268}));
  EXPECT_EQ(b.box, (PixelBox{2, 9, 20, 19}));
}

TEST(CropSampler, RefusesRangesThatMakeNoSense) {
  CropSampling sampling;
  sampling.scale = {0.5, 0.2};
  EXPECT_EQ(CropSampler::Make(sampling).error().message,
            "crop scale 0.5,0.2 and ratio 0.75,1.3333333333333333: expected LOW,HIGH with 0 < LOW <= HIGH");
}

// Every image shape, recipe and number of crops: accepted at once, after rejections, never.
TEST(CropSampler, ManyAreTheSameAsOneAfterTheOther) {
  std::mt19937_64 random(1);
  uint64_t crops = 0, centred = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    const auto side = [&] { return 1 + static_cast<uint32_t>(random() >> (trial % 7 == 0 ? 33 : 54 + random() % 9)); };
    const uint32_t width = side(), height = side(), first = static_cast<uint32_t>(random() >> (random() % 2 ? 32 : 55));
    CropSampling sampling;
    const auto range = [&](double low, double high) {
      std::uniform_real_distribution<double> of(std::log(low), std::log(high));
      const double a = std::exp(of(random)), b = std::exp(of(random));
      return std::array<double, 2>{std::min(a, b), std::max(a, b)};
    };
    if (trial % 3 == 1) sampling = {range(0.01, 4), range(0.1, 10), static_cast<double>(random() % 3) / 2};
    if (trial % 3 == 2) sampling.ratio = range(1e-3, 1e3);
    if (trial == 5) sampling.ratio = {1e-300, 1e300};
    const auto sampler = CropSampler::Make(sampling);
    ASSERT_TRUE(sampler);
    const uint64_t seed = random(), stream = random();
    std::vector<SampledCrop> many(1 + random() % 400);
    sampler->SampleMany(seed, stream, first, width, height, many);
    for (size_t i = 0; i < many.size(); ++i) {
      const SampledCrop one = sampler->Sample(seed, stream, first + static_cast<uint32_t>(i), width, height);
      ASSERT_EQ(many[i].box, one.box) << width << " x " << height << ", crop " << i;
      ASSERT_EQ(many[i].flip, one.flip);
      ++crops;
      centred += one.box.top == (height - one.box.height) / 2 && one.box.left == (width - one.box.width) / 2;
    }
  }
  EXPECT_GT(centred, crops / 20);
  EXPECT_LT(centred, crops / 2);
}

// Whatever the processor, by every instruction set that this one has.
TEST(CropSampler, LanesAreTheSameInEveryInstructionSet) {
#if defined(__x86_64__)
  std::mt19937_64 random(2);
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  for (int trial = 0; trial < 20000; ++trial) {
    const LaneRule rule = {random(), random(), 375, 500, 0.08, 0.92, -0.2877, 0.5754};
    LaneDraws plain, wide;
    for (uint32_t& index : plain.index) index = static_cast<uint32_t>(random());
    wide = plain;
    const auto attempt = static_cast<uint32_t>(trial % 10);
    DrawLanes(rule, attempt, &plain);
    for (LaneFunction* draw : {avx2 ? DrawLanesAvx2 : DrawLanes, avx512 ? DrawLanesAvx512 : DrawLanes}) {
      draw(rule, attempt, &wide);
      for (size_t i = 0; i < kCropLanes; ++i) {
        ASSERT_TRUE(attempt > 0 || plain.flip[i] == wide.flip[i]);
        ASSERT_EQ(plain.height[i], wide.height[i]);
        ASSERT_EQ(plain.width[i], wide.width[i]);
        ASSERT_EQ(plain.top[i], wide.top[i]);
        ASSERT_EQ(plain.left[i], wide.left[i]);
      }
    }
  }
#endif
}

}  // namespace
}  // namespace fkdb
