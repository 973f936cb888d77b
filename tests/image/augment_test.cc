// SPDX-License-Identifier: Apache-2.0
// Operations on pixels against what Pillow and torchvision gave (tests/golden/augment), every byte.
#include "image/augment.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "image/trigonometry.h"
#include "tests/db/test_files.h"
#include "tests/simd_targets.h"

namespace fkdb {
namespace {

const nlohmann::json& Golden() {
  static const auto json = nlohmann::json::parse(test::ReadBytes(std::filesystem::path(FKDB_SOURCE_DIR) / "tests/golden/augment/cases.json"));
  return json;
}

// The pixels that make.py calls picture(kind, height, width, channels, seed).
std::vector<uint8_t> Picture(const std::string& kind, uint32_t height, uint32_t width, uint32_t channels, uint32_t seed) {
  std::vector<uint8_t> pixels;
  pixels.reserve(size_t{height} * width * channels);
  for (uint32_t y = 0; y < height; ++y) {
    for (uint32_t x = 0; x < width; ++x) {
      for (uint32_t c = 0; c < channels; ++c) {
        uint32_t v = seed;  // constant
        if (kind == "noise") {
          uint32_t state = (y * 7919 + x * 104729 + c * 1299709 + seed * 15485863) * 2654435761u;
          state ^= state >> 15;
          v = x * 3 + y * 5 + c * 40 + ((state >> 8) & 255) * (1 + seed % 4);
        } else if (kind == "gradient") {
          v = (x * 2 + y * 3 + c * 50 + seed * 11) / 4;
        } else if (kind == "dull") {
          v = 60 + seed + (x / 3 + y / 2 + 7 * c) % 23 * 3;
        } else if (kind == "colours") {
          v = (y * width + x) >> (16 - 8 * c);
        }
        pixels.push_back(static_cast<uint8_t>(v));
      }
    }
  }
  return pixels;
}

constexpr uint64_t kPartner = 0x0123456789abcdef;

CropOp OpNamed(const nlohmann::json& op) {
  CropOp out;
  for (uint16_t kind = 0;; ++kind) {
    out.kind = static_cast<OpKind>(kind);
    if (InfoOf(out.kind) == nullptr) ADD_FAILURE() << op;
    if (InfoOf(out.kind) == nullptr || InfoOf(out.kind)->name == op[0]) break;
  }
  if (InfoOf(out.kind)->has_partner) out.partner = kPartner;
  for (size_t i = 1; i < op.size(); ++i) out.values[i - 1] = static_cast<float>(op[i].get<double>());
  return out;
}

std::vector<CropOp> OpsNamed(const nlohmann::json& ops) {
  std::vector<CropOp> out;
  for (const auto& op : ops) out.push_back(OpNamed(op));
  return out;
}

uint32_t Crc(const std::vector<uint8_t>& bytes) {
  return static_cast<uint32_t>(crc32_z(crc32_z(0, nullptr, 0), bytes.data(), bytes.size()));
}

// One Augmenter a size, for all of its cases one after the other: what it keeps between them must not matter.
TEST(Augment, PixelsAreThoseOfPillow) {
  std::map<std::array<uint32_t, 3>, Augmenter> augmenters;
  std::map<std::string, int> compared;
  for (const auto& one : Golden()["cases"]) {
    const auto& p = one["pixels"];
    const uint32_t height = p[1], width = p[2], channels = p[3], seed = p[4];
    Augmenter& augmenter = augmenters.try_emplace({height, width, channels}, height, width, channels).first->second;
    const std::vector<uint8_t> before = Picture(p[0], height, width, channels, seed);
    const std::vector<CropOp> ops = OpsNamed(one["ops"]);
    const PartnerSource partner = [&](uint64_t hash, const PixelBox& box, bool flip, uint8_t* out) -> Result<void> {
      EXPECT_EQ(hash, kPartner);
      EXPECT_EQ(box, (PixelBox{0, 0, 1, 1}));
      EXPECT_FALSE(flip);
      const auto pixels = Picture("noise", height, width, channels, seed + 1);
      std::copy(pixels.begin(), pixels.end(), out);
      return {};
    };
    test::ForEachSimdTarget([&] {
      std::vector<uint8_t> pixels = before;
      const auto done = augmenter.Apply(ops, partner, pixels.data());
      ASSERT_TRUE(done) << one << done.error().message;
      ASSERT_EQ(Crc(pixels), one["crc"].get<uint32_t>()) << one;
    });
    if (HasFatalFailure()) return;
    for (const auto& op : one["ops"]) ++compared[op[0]];
  }
  EXPECT_EQ(compared.size(), 21u);  // every kind that is no replay and not listed
  for (const auto& [name, count] : compared) EXPECT_GE(count, 10) << name;
}

// Parameters, sizes and pictures drawn at random: every instruction set gives the bits of the first, and leaves
// alone what lies behind the pixels.
TEST(Augment, EveryInstructionSetGivesTheSameBits) {
  std::mt19937_64 random(3);
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  const auto uniform = [&](double low, double high) {
    return static_cast<float>(low + (high - low) * static_cast<double>(random() >> 11) * 0x1p-53);
  };
  for (int n = 0; n < 400; ++n) {
    const uint32_t height = 1 + below(n % 3 == 0 ? 4 : 90), width = 1 + below(n % 5 == 0 ? 4 : 150), channels = n % 4 == 0 ? 1 : 3;
    std::vector<CropOp> ops;
    for (int i = 0; i < 3; ++i) {
      const auto kind = static_cast<OpKind>(below(17));
      const bool shear = kind == OpKind::kShearX || kind == OpKind::kShearY;
      const bool translate = kind == OpKind::kTranslateX || kind == OpKind::kTranslateY;
      const float value = kind == OpKind::kHue         ? uniform(-0.5, 0.5)
                          : kind == OpKind::kPosterize ? static_cast<float>(below(9))
                          : kind == OpKind::kSolarize  ? uniform(0, 256)
                          : kind == OpKind::kRotate    ? uniform(-400, 400)
                          : kind == OpKind::kBlur      ? uniform(0, 9)
                          : shear                      ? uniform(-89, 89)
                          : translate                  ? uniform(-100, 100)
                                                       : uniform(-1, 3);
      ops.push_back({kind, 0, {value}});
    }
    const std::vector<uint8_t> before = Picture("noise", height, width, channels, below(100));
    Augmenter augmenter(height, width, channels);
    std::vector<uint8_t> first;
    test::ForEachSimdTarget([&] {
      std::vector<uint8_t> pixels = before;
      pixels.resize(before.size() + 200, 0xa5);
      ASSERT_TRUE(augmenter.Apply(ops, {}, pixels.data()));
      ASSERT_EQ(std::count(pixels.begin() + static_cast<ptrdiff_t>(before.size()), pixels.end(), 0xa5), 200);
      if (first.empty()) first = pixels;
      ASSERT_EQ(pixels, first) << n;
    });
    if (HasFatalFailure()) return;
  }
}

// The partner's source is asked once for each partner-crop, with its box and flip, and what it answers is passed on.
TEST(Augment, PartnersAreAskedFor) {
  Augmenter augmenter(2, 3, 1);
  EXPECT_EQ(augmenter.samples(), 6u);
  std::vector<std::string> asked;
  const PartnerSource source = [&](uint64_t partner, const PixelBox& box, bool flip, uint8_t* out) -> Result<void> {
    asked.push_back(fmt::format("{} {},{},{},{} {}", partner, box.top, box.left, box.height, box.width, flip));
    std::fill(out, out + 6, static_cast<uint8_t>(partner));
    if (partner == 99) return Fail(ErrorCode::kNotFound, "no image 99");
    return {};
  };
  std::vector<uint8_t> pixels = {10, 20, 30, 40, 50, 60};
  const std::vector<CropOp> ops = {{OpKind::kPartnerCrop, 0, {1, 2, 30, 40, 1}},
                                   {OpKind::kInvert},
                                   {OpKind::kMixup, 155, {0.5f}},
                                   {OpKind::kInvert},
                                   {OpKind::kCutmix, 155, {0.5f, 0, 1, 1, 2}},
                                   {OpKind::kPartnerCrop, 0, {0, 0, 1, 1, 0}},
                                   {OpKind::kCutmix, 7, {0.5f, 1, 2, 9, 9}}};
  ASSERT_TRUE(augmenter.Apply(ops, source, pixels.data()));
  EXPECT_EQ(asked, (std::vector<std::string>{"155 1,2,30,40 true", "7 0,0,1,1 false"}));
  // The partner inverted is 100: 55, 60, 65, .. mixed, 200, 195, 190, .. inverted.
  EXPECT_EQ(pixels, (std::vector<uint8_t>{200, 100, 100, 185, 180, 7}));

  const std::vector<CropOp> missing = {{OpKind::kPartnerCrop, 0, {0, 0, 1, 1, 0}}, {OpKind::kMixup, 99, {0.5f}}};
  EXPECT_EQ(augmenter.Apply(missing, source, pixels.data()).error().message, "no image 99");
  EXPECT_EQ(augmenter.Apply(missing, {}, pixels.data()).error().message, "operation 1 of 2: nobody here gives partners' pixels");
}

TEST(Augment, WhatMakesNoSenseIsRefusedBeforeAPixelChanges) {
  Augmenter augmenter(2, 2, 3);
  const std::vector<uint8_t> before(12, 9);
  const CropOp crop = {OpKind::kPartnerCrop, 0, {0, 0, 1, 1, 0}}, mixup = {OpKind::kMixup, 1, {0.5f}};
  const CropOp other = {OpKind::kCutmix, 2, {0.5f, 0, 0, 1, 1}};
  const auto refused = [&](std::vector<CropOp> ops, ErrorCode code = ErrorCode::kInvalidArgument) {
    ops.insert(ops.begin(), {OpKind::kInvert});
    std::vector<uint8_t> pixels = before;
    const auto done = augmenter.Apply(ops, [](auto...) -> Result<void> { return {}; }, pixels.data());
    EXPECT_EQ(pixels, before);
    if (done) return std::string("done");
    EXPECT_EQ(done.error().code, code);
    return done.error().message;
  };
  EXPECT_EQ(refused({{OpKind::kReplay, 0, {1, 2}}}, ErrorCode::kUnsupported),
            "operation 2 of 2, replay: cannot be done here: what it did to the pixels is known to the system the labels were imported from");
  EXPECT_EQ(refused({{OpKind::kListed, 0, {1, 1, 2}}}, ErrorCode::kUnsupported),
            "operation 2 of 2, listed: cannot be done here: what it did to the pixels is known to the system the labels were imported from");
  EXPECT_EQ(refused({{static_cast<OpKind>(999)}}, ErrorCode::kUnsupported), "operation 2 of 2, kind 999: not known to this version of fkdb");
  EXPECT_EQ(refused({mixup}), "operation 2 of 2, mixup: no partner-crop before it says what the partner shows");
  EXPECT_EQ(refused({crop}), "operation 2 of 2, partner-crop: no mixup or cutmix behind it");
  EXPECT_EQ(refused({crop, {OpKind::kInvert}}), "operation 2 of 3, partner-crop: no mixup or cutmix behind it");
  EXPECT_EQ(refused({crop, crop, mixup}), "operation 2 of 4, partner-crop: no mixup or cutmix before the next partner-crop");
  EXPECT_EQ(refused({crop, mixup, other}),
            "operation 4 of 4, cutmix: its partner is not that of the mix before it: it needs a partner-crop of its own");
  EXPECT_EQ(refused({{OpKind::kContrast, 0, {NAN}}}), "operation 2 of 2, contrast: a value that is not finite");
  EXPECT_EQ(refused({{OpKind::kHue, 0, {0.6f}}}), "operation 2 of 2, hue: expected a shift of -0.5 to 0.5, got 0.6");
  EXPECT_EQ(refused({{OpKind::kShearY, 0, {-90}}}), "operation 2 of 2, shear-y: expected degrees between -90 and 90, got -90");
  EXPECT_EQ(refused({{OpKind::kPosterize, 0, {9}}}), "operation 2 of 2, posterize: expected 0 to 8 bits, got 9");
  EXPECT_EQ(refused({{OpKind::kBlur, 0, {2000}}}), "operation 2 of 2, blur: expected a sigma of 0 to 1000, got 2000");
  EXPECT_EQ(refused({{OpKind::kErase, 0, {0, 0, 1.5f, 1}}}),
            "operation 2 of 2, erase: expected whole pixels: top, left >= 0, height, width >= 1, got 0 0 1.5 1");
  EXPECT_EQ(refused({{OpKind::kPartnerCrop, 0, {0, 0, 0, 1, 0}}, mixup}),
            "operation 2 of 3, partner-crop: expected whole pixels: top, left >= 0, height, width >= 1, got 0 0 0 1 0");
  EXPECT_EQ(refused({crop, {OpKind::kMixup, 1, {1.5f}}}), "operation 3 of 3, mixup: expected a lambda of 0 to 1, got 1.5");
  EXPECT_EQ(refused({crop, {OpKind::kCutmix, 1, {0.5f, -1, 0, 1, 1}}}),
            "operation 3 of 3, cutmix: expected whole pixels: top, left >= 0, height, width >= 1, got 0.5 -1 0 1 1");
}

TEST(Trigonometry, IsThatOfTheCLibraryButForItsLastBit) {
  std::mt19937_64 random(1);
  for (int n = 0; n < 200000; ++n) {
    const double x = (static_cast<double>(random() >> 11) * 0x1p-53 - 0.5) * (n % 3 == 0 ? 0.01 : n % 3 == 1 ? 14 : 1000);
    const auto [sine, cosine] = PortableSineCosine(x);
    EXPECT_NEAR(sine, std::sin(x), 0x1p-52) << x;
    EXPECT_NEAR(cosine, std::cos(x), 0x1p-52) << x;
    if (std::fabs(x) > 0.5) continue;
    EXPECT_NEAR(PortableArcTangent(x), std::atan(x), 0x1p-52 * std::fabs(x)) << x;
  }
  EXPECT_EQ(PortableSineCosine(0).sine, 0);
  EXPECT_EQ(PortableSineCosine(0).cosine, 1);
  EXPECT_NEAR(PortableSineCosine(0x1.921fb54442d18p+0).cosine, 6.123233995736766e-17, 1e-32);
  EXPECT_NEAR(PortableArcTangent(0.5), std::atan(0.5), 1e-16);
}

}  // namespace
}  // namespace fkdb
