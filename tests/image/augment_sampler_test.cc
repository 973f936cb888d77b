// SPDX-License-Identifier: Apache-2.0
#include "image/augment_sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "format/hash.h"
#include "image/augment.h"
#include "format/crop_sampler.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

constexpr uint32_t kDraws = 20000;
constexpr double kDeviations = 5;  // that a mean may be off by; seeds are fixed, so that it either is or is not

AugmentSampler Sampler(const AugmentPolicy& policy, uint32_t height = 224, uint32_t width = 224) {
  auto sampler = AugmentSampler::Make(policy, height, width);
  EXPECT_TRUE(sampler) << sampler.error().message;
  return *sampler;
}

std::vector<AugmentDraw> Draws(const AugmentSampler& sampler, uint32_t count = kDraws) {
  std::vector<AugmentDraw> draws;
  for (uint32_t i = 0; i < count; ++i) draws.push_back(sampler.Draw(7, 1000 + i / 4, i % 4, i % 50, 50));
  return draws;
}

// Numbers expected to be uniform in [low, high).
struct Uniform {
  std::vector<double> seen;
  void Expect(double low, double high) const {
    ASSERT_GE(seen.size(), 1000u);
    double sum = 0, squares = 0;
    for (const double x : seen) {
      EXPECT_GE(x, low - 1e-6);
      EXPECT_LE(x, high + 1e-6);
      const double u = (x - low) / (high - low);
      sum += u;
      squares += u * u;
    }
    const auto n = static_cast<double>(seen.size());
    EXPECT_NEAR(sum / n, 0.5, kDeviations * std::sqrt(1 / 12.0 / n));
    EXPECT_NEAR(squares / n, 1 / 3.0, kDeviations * std::sqrt(4 / 45.0 / n));
  }
};

void ExpectShare(double count, double all, double share) {
  EXPECT_NEAR(count / all, share, kDeviations * std::sqrt(share * (1 - share) / all));
}

TEST(AugmentSampler, NoPolicyDrawsNothing) {
  EXPECT_TRUE(AugmentPolicy().empty());
  for (const AugmentDraw& draw : Draws(Sampler({}), 100)) {
    EXPECT_TRUE(draw.ops.empty());
    EXPECT_FALSE(draw.mix);
  }
  const auto empty = [](auto change) {
    AugmentPolicy policy;
    change(policy);
    EXPECT_FALSE(policy == AugmentPolicy());
    return policy.empty();
  };
  EXPECT_FALSE(empty([](AugmentPolicy& p) { p.randaugment_ops = 1; }));
  EXPECT_FALSE(empty([](AugmentPolicy& p) { p.hue = 0.1; }));
  EXPECT_TRUE(empty([](AugmentPolicy& p) { p.hue = 0.1, p.jitter_probability = 0; }));
  EXPECT_FALSE(empty([](AugmentPolicy& p) { p.grayscale_probability = 0.1; }));
  EXPECT_FALSE(empty([](AugmentPolicy& p) { p.blur_probability = 0.1; }));
  EXPECT_FALSE(empty([](AugmentPolicy& p) { p.erase_probability = 0.1; }));
  EXPECT_FALSE(empty([](AugmentPolicy& p) { p.mixup_alpha = 0.1; }));
  EXPECT_TRUE(empty([](AugmentPolicy& p) { p.cutmix_alpha = 1, p.mix_probability = 0; }));
}

AugmentPolicy Everything() {
  AugmentPolicy policy;
  policy.randaugment_ops = 2;
  policy.brightness = policy.contrast = policy.saturation = 0.4;
  policy.hue = 0.1;
  policy.jitter_probability = 0.8;
  policy.grayscale_probability = 0.2;
  policy.blur_probability = 0.5;
  policy.erase_probability = 0.25;
  policy.mixup_alpha = 0.2;
  policy.cutmix_alpha = 1;
  return policy;
}

// What a seed stands for, literally: a change here is a change of every label set that was drawn so.
TEST(AugmentSampler, DrawsAreAFunctionOfSeedStreamAndIndex) {
  const AugmentSampler sampler = Sampler(Everything());
  std::set<std::string> different;
  std::string all;
  for (const uint64_t seed : {0, 1}) {
    for (const uint64_t stream : {0ull, 0xfeedull}) {
      for (const uint32_t index : {0, 1}) {
        const auto text = [&] {
          const AugmentDraw draw = sampler.Draw(seed, stream, index, 3, 1000);
          std::vector<CropOp> ops = draw.ops;
          if (draw.mix) AppendMix(*draw.mix, draw.mix->partner, {1, 2, 3, 4}, true, &ops);
          std::string out;
          for (const CropOp& op : ops) {
            out += std::string(InfoOf(op.kind)->name) + " " + std::to_string(op.partner);
            for (size_t i = 0; i < InfoOf(op.kind)->values.size(); ++i) out += " " + std::to_string(op.values[i]);
            out += ";";
          }
          return out;
        };
        EXPECT_EQ(text(), text());
        different.insert(text());
        if (seed == 1 && stream == 0xfeed && index == 1) all = text();
      }
    }
  }
  EXPECT_EQ(different.size(), 8u);
  EXPECT_EQ(all,
            "saturation 0 0.730000;posterize 0 7.000000;saturation 0 1.386493;contrast 0 1.225855;hue 0 0.040130;brightness 0 0.943653;"
            "erase 0 146.000000 0.000000 66.000000 110.000000;partner-crop 0 1.000000 2.000000 3.000000 4.000000 1.000000;"
            "cutmix 929 0.426738 71.000000 0.000000 153.000000 188.000000;");
  std::vector<uint32_t> words;  // every bit of many
  for (AugmentDraw& draw : Draws(sampler, 5000)) {
    if (draw.mix) AppendMix(*draw.mix, draw.mix->crop_seed, {1, 2, 3, 4}, true, &draw.ops);
    AppendOpWords(draw.ops, &words);
  }
  EXPECT_EQ(Hash64({reinterpret_cast<const char*>(words.data()), 4 * words.size()}), 5030950840982202105u);
}

// A part draws the same whatever else the policy has.
TEST(AugmentSampler, PartsDoNotDisturbEachOther) {
  AugmentPolicy erasing, mixing;
  erasing.erase_probability = 0.25;
  mixing.mixup_alpha = 0.2;
  mixing.cutmix_alpha = 1;
  const auto all = Draws(Sampler(Everything()), 500), erased = Draws(Sampler(erasing), 500), mixed = Draws(Sampler(mixing), 500);
  int compared = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!erased[i].ops.empty()) {
      ASSERT_FALSE(all[i].ops.empty());
      EXPECT_EQ(all[i].ops.back(), erased[i].ops.back());
      ++compared;
    }
    ASSERT_EQ(all[i].mix.has_value(), mixed[i].mix.has_value());
    if (!all[i].mix) continue;
    EXPECT_EQ(all[i].mix->lambda, mixed[i].mix->lambda);
    EXPECT_EQ(all[i].mix->box, mixed[i].mix->box);
    EXPECT_EQ(all[i].mix->partner, mixed[i].mix->partner);
  }
  EXPECT_GE(compared, 80);
}

// Every draw can be done, and recorded and read again.
TEST(AugmentSampler, WhatIsDrawnCanBeDoneAndRecorded) {
  for (const auto& [height, width, channels] : {std::tuple(1u, 1u, 3u), {1u, 7u, 1u}, {33u, 20u, 3u}}) {
    const AugmentSampler sampler = Sampler(Everything(), height, width);
    Augmenter augmenter(height, width, channels);
    std::vector<uint8_t> pixels(augmenter.samples(), 100);
    for (AugmentDraw& draw : Draws(sampler, 300)) {
      if (draw.mix) AppendMix(*draw.mix, 77, {1, 2, 3, 4}, false, &draw.ops);
      const auto done = augmenter.Apply(draw.ops, [](auto...) -> Result<void> { return {}; }, pixels.data());
      ASSERT_TRUE(done) << done.error().message;
      std::vector<uint32_t> words;
      AppendOpWords(draw.ops, &words);
      const auto parsed = ParseOpWords(words);
      ASSERT_TRUE(parsed) << parsed.error().message;
      EXPECT_EQ(*parsed, draw.ops);
    }
  }
}

TEST(AugmentSampler, JitterIsUniformAndInRandomOrder) {
  AugmentPolicy policy;
  policy.brightness = 0.4;
  policy.contrast = 1.5;  // from 0 on
  policy.saturation = 0.2;
  policy.hue = 0.1;
  policy.jitter_probability = 0.8;
  std::map<OpKind, Uniform> values;
  std::map<std::vector<OpKind>, int> orders;
  for (const AugmentDraw& draw : Draws(Sampler(policy))) {
    std::vector<OpKind> order;
    for (const CropOp& op : draw.ops) {
      values[op.kind].seen.push_back(op.values[0]);
      order.push_back(op.kind);
    }
    ++orders[order];
  }
  values[OpKind::kBrightness].Expect(0.6, 1.4);
  values[OpKind::kContrast].Expect(0, 2.5);
  values[OpKind::kSaturation].Expect(0.8, 1.2);
  values[OpKind::kHue].Expect(-0.1, 0.1);
  ExpectShare(orders[{}], kDraws, 0.2);
  ASSERT_EQ(orders.size(), 25u);
  for (const auto& [order, count] : orders) {
    if (!order.empty()) ExpectShare(count, kDraws, 0.8 / 24);
  }
  policy.contrast = policy.saturation = policy.hue = 0;
  for (const AugmentDraw& draw : Draws(Sampler(policy), 100)) EXPECT_LE(draw.ops.size(), 1u);
}

TEST(AugmentSampler, MagnitudesAreThoseOfTorchvision) {
  const auto golden = nlohmann::json::parse(test::ReadBytes(std::filesystem::path(FKDB_SOURCE_DIR) / "tests/golden/augment/cases.json"))["randaugment"];
  const std::map<OpKind, std::string> names = {
      {OpKind::kShearX, "ShearX"},         {OpKind::kShearY, "ShearY"},     {OpKind::kTranslateX, "TranslateX"},
      {OpKind::kTranslateY, "TranslateY"}, {OpKind::kRotate, "Rotate"},     {OpKind::kBrightness, "Brightness"},
      {OpKind::kSaturation, "Color"},      {OpKind::kContrast, "Contrast"}, {OpKind::kSharpness, "Sharpness"},
      {OpKind::kPosterize, "Posterize"},   {OpKind::kSolarize, "Solarize"}};
  for (const auto& [size, tables] : golden.items()) {
    const auto height = static_cast<uint32_t>(std::stoul(size)), width = static_cast<uint32_t>(std::stoul(size.substr(size.find('x') + 1)));
    for (uint32_t magnitude = 0; magnitude <= 30; ++magnitude) {
      AugmentPolicy policy;
      policy.randaugment_ops = 1;
      policy.randaugment_magnitude = magnitude;
      std::set<OpKind> seen;
      int none = 0;
      const AugmentSampler sampler = Sampler(policy, height, width);
      for (const auto& [positive, negative] : sampler.choices()) {
        none += !positive && !negative;
        if (!positive) continue;
        seen.insert(positive->kind);
        ASSERT_EQ(positive->kind, negative->kind);
        if (!names.contains(positive->kind)) {
          EXPECT_EQ(*positive, *negative);
          continue;
        }
        const double level = tables[names.at(positive->kind)][magnitude];  // what torchvision draws; it passes on ..
        for (const double sign : {1.0, -1.0}) {
          double expected = sign * level;
          switch (positive->kind) {
            case OpKind::kShearX:
            case OpKind::kShearY:
              expected = std::atan(sign * level) * 180 / 3.14159265358979323846;
              break;
            case OpKind::kTranslateX:
            case OpKind::kTranslateY:
              expected = std::trunc(sign * level);
              break;
            case OpKind::kRotate:
              break;
            case OpKind::kPosterize:
            case OpKind::kSolarize:
              expected = level;
              break;
            default:
              expected = 1 + sign * level;
          }
          EXPECT_EQ((sign > 0 ? positive : negative)->values[0], static_cast<float>(expected)) << names.at(positive->kind) << " " << magnitude;
        }
      }
      EXPECT_EQ(seen.size(), 13u);
      EXPECT_EQ(none, 1);
    }
  }
}

TEST(AugmentSampler, RandAugmentTakesEachOperationEquallyOften) {
  AugmentPolicy policy;
  policy.randaugment_ops = 2;
  std::map<std::pair<OpKind, float>, int> seen;
  int all = 0;
  for (const AugmentDraw& draw : Draws(Sampler(policy))) {
    EXPECT_LE(draw.ops.size(), 2u);
    for (const CropOp& op : draw.ops) ++seen[{op.kind, op.values[0]}], ++all;
  }
  ExpectShare(2 * kDraws - all, 2 * kDraws, 1 / 14.0);  // none
  EXPECT_EQ(seen.size(), 9 * 2 + 4u);
  for (const auto& [op, count] : seen) {
    const bool both_signs = op.first < OpKind::kPosterize;
    ExpectShare(count, 2 * kDraws, both_signs ? 1 / 28.0 : 1 / 14.0);
  }
}

TEST(AugmentSampler, GrayscaleAndBlur) {
  AugmentPolicy policy;
  policy.grayscale_probability = 0.2;
  policy.blur_probability = 0.5;
  policy.blur_sigma = {0.1, 2};
  int grey = 0;
  Uniform sigma;
  for (const AugmentDraw& draw : Draws(Sampler(policy))) {
    for (const CropOp& op : draw.ops) {
      grey += op.kind == OpKind::kGrayscale;
      if (op.kind == OpKind::kBlur) sigma.seen.push_back(op.values[0]);
    }
    EXPECT_TRUE(draw.ops.size() < 2 || draw.ops[0].kind == OpKind::kGrayscale);
  }
  ExpectShare(grey, kDraws, 0.2);
  ExpectShare(static_cast<double>(sigma.seen.size()), kDraws, 0.5);
  sigma.Expect(0.1, 2);
}

TEST(AugmentSampler, ErasedBoxesHaveTheAreaAndTheAspect) {
  AugmentPolicy policy;
  policy.erase_probability = 0.6;
  policy.erase_area = {0.1, 0.2};  // with these all fit at once
  policy.erase_aspect = {0.5, 2};
  Uniform area, aspect, top, left;
  for (const AugmentDraw& draw : Draws(Sampler(policy, 1000, 2000))) {
    for (const CropOp& op : draw.ops) {
      const auto& v = op.values;
      ASSERT_EQ(op.kind, OpKind::kErase);
      area.seen.push_back(v[2] * v[3] / 2e6);
      aspect.seen.push_back(std::log(v[2] / v[3]));
      if (v[2] < 1000) top.seen.push_back(v[0] / (1000 - v[2] + 1));
      left.seen.push_back(v[1] / (2000 - v[3] + 1));
    }
  }
  ExpectShare(static_cast<double>(area.seen.size()), kDraws, 0.6);
  for (double& x : area.seen) x = std::clamp(x, 0.1, 0.2);  // but for rounding to whole pixels
  for (double& x : aspect.seen) x = std::clamp(x, std::log(0.5), std::log(2.0));
  area.Expect(0.1, 0.2);
  aspect.Expect(std::log(0.5), std::log(2));
  top.Expect(0, 1);
  left.Expect(0, 1);

  policy.erase_area = {0.02, 0.33};  // the usual ones, where a box may not fit at first
  policy.erase_aspect = {0.3, 3.3};
  policy.erase_probability = 1;
  for (const AugmentDraw& draw : Draws(Sampler(policy, 20, 31))) {
    ASSERT_EQ(draw.ops.size(), 1u);
    const auto& v = draw.ops[0].values;
    EXPECT_TRUE(v[0] + v[2] <= 20 && v[1] + v[3] <= 31 && v[2] >= 1 && v[3] >= 1);
  }
}

TEST(AugmentSampler, MixesHaveOtherPartnersEquallyOften) {
  AugmentPolicy policy;
  policy.mixup_alpha = 0.2;
  policy.cutmix_alpha = 1;
  policy.mix_probability = 0.7;
  const AugmentSampler sampler = Sampler(policy, 30, 20);
  std::map<uint64_t, int> partners;
  int mixups = 0, cutmixes = 0;
  double lambdas = 0;
  for (uint32_t i = 0; i < kDraws; ++i) {
    const AugmentDraw draw = sampler.Draw(5, i, 2, 3, 8);
    EXPECT_TRUE(draw.ops.empty());
    if (!draw.mix) continue;
    ++partners[draw.mix->partner];
    EXPECT_EQ(draw.mix->crop_seed, sampler.Draw(5, 1, 0, 0, 8).mix.value_or(*draw.mix).crop_seed);
    EXPECT_NE(draw.mix->crop_seed, 5u);
    lambdas += draw.mix->lambda;
    if (draw.mix->kind == OpKind::kMixup) {
      ++mixups;
      EXPECT_EQ(draw.mix->box, PixelBox());
      continue;
    }
    ++cutmixes;
    const PixelBox& box = draw.mix->box;
    ASSERT_TRUE(box.height >= 1 && box.width >= 1 && box.top + box.height <= 30 && box.left + box.width <= 20);
    EXPECT_EQ(draw.mix->lambda, static_cast<float>((600.0 - box.height * box.width) / 600));
  }
  ExpectShare(mixups, kDraws, 0.35);
  EXPECT_GT(cutmixes, 0.9 * mixups);  // less those whose box is empty
  EXPECT_LE(cutmixes, mixups + 5 * std::sqrt(kDraws));
  EXPECT_EQ(partners.size(), 7u);
  EXPECT_FALSE(partners.contains(3));
  for (const auto& [partner, count] : partners) ExpectShare(count, mixups + cutmixes, 1 / 7.0);
  EXPECT_GT(lambdas / (mixups + cutmixes), 0.5);  // clipped boxes leave more of the image
  for (uint32_t i = 0; i < 100; ++i) EXPECT_FALSE(sampler.Draw(5, i, 0, 0, 1).mix);
}

// With lambda uniform the squared side s of a box is, and what is left of a side inside is s - s^2 / 4 on average.
TEST(AugmentSampler, CutmixBoxesHaveTheirShareOfTheArea) {
  AugmentPolicy policy;
  policy.cutmix_alpha = 1;
  double area = 0;
  const auto draws = Draws(Sampler(policy, 1000, 2000));
  for (const AugmentDraw& draw : draws) area += draw.mix ? 1 - draw.mix->lambda : 0;
  EXPECT_NEAR(area / kDraws, 1 / 2.0 - 1 / 5.0 + 1 / 48.0, kDeviations * 0.25 / std::sqrt(kDraws));
}

TEST(AugmentSampler, TheBetaDistributionIsRight) {
  for (const double alpha : {0.01, 0.1, 0.2, 0.4, 0.8, 1.0, 1.5, 4.0, 100.0}) {
    SCOPED_TRACE(alpha);
    CounterRandom random(11, static_cast<uint64_t>(alpha * 100), 0);
    const int n = 100000;
    double mean = 0, second = 0, fourth = 0;
    int low = 0;
    for (int i = 0; i < n; ++i) {
      const double x = DrawSymmetricBeta(alpha, &random), d = x - 0.5;
      ASSERT_TRUE(x >= 0 && x <= 1);
      mean += d / n;
      second += d * d / n;
      fourth += d * d * d * d / n;
      low += x < 0.5;
    }
    // Central moments: variance 1 / (4 (2 alpha + 1)), fourth 3 / (16 (2 alpha + 1) (2 alpha + 3)).
    const double variance = 1 / (4 * (2 * alpha + 1)), kurtosis = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3));
    EXPECT_NEAR(mean, 0, kDeviations * std::sqrt(variance / n));
    EXPECT_NEAR(second, variance, kDeviations * std::sqrt((kurtosis - variance * variance) / n));
    EXPECT_NEAR(fourth, kurtosis, 0.03 * kurtosis);
    ExpectShare(low, n, 0.5);
  }
}

TEST(AugmentSampler, SenselessPoliciesAreRefused) {
  const auto refused = [](auto change) {
    AugmentPolicy policy;
    change(policy);
    const auto sampler = AugmentSampler::Make(policy, 224, 224);
    if (sampler) return std::string("made");
    EXPECT_EQ(sampler.error().code, ErrorCode::kInvalidArgument);
    return sampler.error().message;
  };
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.randaugment_ops = 17; }), "randaugment-ops 17: expected 0 to 16");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.randaugment_magnitude = 31; }), "randaugment-magnitude 31: expected 0 to 30");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.contrast = -0.5; }), "contrast -0.5: expected 0 (off) to 100");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.saturation = NAN; }), "saturation nan: expected 0 (off) to 100");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.hue = 0.6; }), "hue 0.6: expected 0 (off) to 0.5");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.jitter_probability = 1.5; }), "jitter-probability 1.5: expected 0 to 1");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.grayscale_probability = -1; }), "grayscale-probability -1: expected 0 to 1");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.mix_probability = NAN; }), "mix-probability nan: expected 0 to 1");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.blur_sigma = {2, 1}; }), "blur-sigma 2,1: expected LOW,HIGH with 0 < LOW <= HIGH <= 1000");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.erase_area = {0.1, 1.5}; }), "erase-area 0.1,1.5: expected LOW,HIGH with 0 < LOW <= HIGH <= 1");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.erase_aspect = {0, 1}; }), "erase-aspect 0,1: expected LOW,HIGH with 0 < LOW <= HIGH <= 1000");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.mixup_alpha = 0.001; }), "mixup-alpha 0.001: expected 0 (off) or 0.01 to 100");
  EXPECT_EQ(refused([](AugmentPolicy& p) { p.cutmix_alpha = -1; }), "cutmix-alpha -1: expected 0 (off) or 0.01 to 100");
  EXPECT_EQ(refused([](AugmentPolicy&) {}), "made");
}

}  // namespace
}  // namespace fkdb
