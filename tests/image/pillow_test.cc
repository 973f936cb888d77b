// SPDX-License-Identifier: Apache-2.0
// Decoding and resampling against what Pillow gave (tests/golden/pillow), byte for byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "image/decode.h"
#include "image/resample.h"
#include "tests/db/test_files.h"
#include "tests/simd_targets.h"

namespace fkdb {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(FKDB_SOURCE_DIR) / "tests/golden/pillow";

// The image that make.py calls source(height, width, channels, seed).
Image Source(uint32_t height, uint32_t width, uint32_t channels, uint32_t seed) {
  Image image = {height, width, channels, {}};
  for (uint32_t y = 0; y < height; ++y) {
    for (uint32_t x = 0; x < width; ++x) {
      for (uint32_t c = 0; c < channels; ++c) {
        uint32_t state = (y * 7919 + x * 104729 + c * 1299709 + seed * 15485863) * 2654435761u;
        state ^= state >> 15;
        const uint32_t noise = (state >> 8) & 255;
        image.pixels.push_back(static_cast<uint8_t>(x * 3 + y * 5 + c * 40 + noise * (1 + seed % 4)));
      }
    }
  }
  return image;
}

struct Golden {
  explicit Golden(const std::filesystem::path& folder = kGolden)
      : cases(nlohmann::json::parse(test::ReadBytes(folder / "cases.json"))), expected(test::ReadBytes(folder / "expected.bin")) {}

  nlohmann::json cases;
  std::string expected;

  void Compare(const nlohmann::json& one, const std::vector<uint8_t>& pixels) const {
    ASSERT_EQ(pixels.size(), one["bytes"].get<size_t>()) << one;
    const size_t offset = one["offset"];
    for (size_t i = 0; i < pixels.size(); ++i) {
      ASSERT_EQ(pixels[i], static_cast<uint8_t>(expected[offset + i])) << "byte " << i << " of " << one;
    }
  }
};

// Returns how many crops were compared.
int CompareCrops(const Golden& golden, PassOrder order) {
  int compared = 0;
  for (const auto& one : golden.cases) {
    if (one["kind"] != "resample") continue;
    const auto& s = one["source"];
    const auto& b = one["box"];
    const Image image = Source(s[0], s[1], s[2], s[3]);
    CropResizer resizer(one["size"][0], one["size"][1], *ParseInterpolation(one["interpolation"].get<std::string>()), order);
    std::vector<uint8_t> out(size_t{resizer.out_height()} * resizer.out_width() * image.channels);
    test::ForEachSimdTarget([&] {
      resizer.Run(image, {b[0], b[1], b[2], b[3]}, one["flip"], out.data());
      golden.Compare(one, out);
    });
    ++compared;
  }
  return compared;
}

TEST(Pillow, ResampledCropsAreEqual) { EXPECT_GE(CompareCrops(Golden(), PassOrder::kHorizontalFirst), 38); }

TEST(Pillow, ThoseOfPillow13AreEqualUnderItsOrder) {
  EXPECT_EQ(CompareCrops(Golden(kGolden.parent_path() / "pillow13"), PassOrder::kAsPillow13), 26);
}

// Pillow's sums written out: sample by sample, without a thought of speed.
std::vector<uint8_t> Slow(const Image& image, const PixelBox& box, bool flip, uint32_t height, uint32_t width, bool cubic) {
  struct Window {
    int64_t first, end;
    std::vector<int64_t> weights;
  };
  const auto windows = [&](uint32_t in, uint32_t out) {
    std::vector<Window> all;
    const double scale = static_cast<double>(in) / out, stretch = std::max(1.0, scale), support = stretch * (cubic ? 2 : 1);
    for (uint32_t x = 0; x < out; ++x) {
      const double center = (x + 0.5) * scale;
      Window w;
      w.first = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
      w.end = std::min<int64_t>(in, static_cast<int64_t>(center + support + 0.5));
      std::vector<double> exact;
      double sum = 0;
      for (int64_t i = w.first; i < w.end; ++i) {
        const double t = std::fabs((static_cast<double>(i) - center + 0.5) * (1 / stretch));
        exact.push_back(!cubic ? std::max(0.0, 1 - t)
                        : t < 1 ? (1.5 * t - 2.5) * t * t + 1
                        : t < 2 ? (((t - 5) * t + 8) * t - 4) * -0.5
                                : 0);
        sum += exact.back();
      }
      for (const double e : exact) w.weights.push_back(std::lround(e / sum * (1 << 22)));
      all.push_back(w);
    }
    return all;
  };
  const auto sample = [](int64_t sum) { return static_cast<uint8_t>(std::clamp<int64_t>((sum + (1 << 21)) >> 22, 0, 255)); };
  const auto columns = windows(box.width, width), rows = windows(box.height, height);
  const uint32_t c = image.channels;
  std::vector<uint8_t> between, out;
  for (uint32_t y = 0; y < box.height; ++y) {
    for (uint32_t j = 0; j < width * c; ++j) {
      const Window& w = columns[flip ? width - 1 - j / c : j / c];
      int64_t sum = 0;
      for (int64_t i = w.first; i < w.end; ++i) {
        sum += w.weights[static_cast<size_t>(i - w.first)] * image.row(box.top + y)[(box.left + static_cast<size_t>(i)) * c + j % c];
      }
      between.push_back(sample(sum));
    }
  }
  for (const Window& w : rows) {
    for (uint32_t j = 0; j < width * c; ++j) {
      int64_t sum = 0;
      for (int64_t i = w.first; i < w.end; ++i) {
        sum += w.weights[static_cast<size_t>(i - w.first)] * between[static_cast<size_t>(i) * width * c + j];
      }
      out.push_back(sample(sum));
    }
  }
  return out;
}

// Every instruction set gives the same bits, for boxes of any size at any place of an image, whether it
// shrinks to a pixel or grows out of one.
TEST(Resampling, EveryInstructionSetGivesTheSameBits) {
  std::mt19937_64 random(7);
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  int compared = 0;
  for (int n = 0; n < 300; ++n) {
    const uint32_t channels = n % 4 == 0 ? 1 : 3, limit = n % 3 == 0 ? 12 : n % 3 == 1 ? 90 : 700;
    const Image image = Source(1 + below(limit), 1 + below(limit), channels, below(4));
    PixelBox box = {0, 0, 1 + below(image.height), 1 + below(image.width)};
    if (n % 5 == 0) box.height = box.width = 1;
    box.top = below(image.height - box.height + 1);
    box.left = below(image.width - box.width + 1);
    if (n % 2 == 0) {  // the image's last corner
      box.top = image.height - box.height;
      box.left = image.width - box.width;
    }
    const bool cubic = below(2), flip = below(2);
    const uint32_t height = 1 + below(n % 7 == 0 ? 3 : 70), width = 1 + below(n % 11 == 0 ? 3 : 70);
    const auto expected = Slow(image, box, flip, height, width, cubic);
    CropResizer resizer(height, width, cubic ? Interpolation::kBicubic : Interpolation::kBilinear);
    test::ForEachSimdTarget([&] {
      std::vector<uint8_t> out(expected.size());
      resizer.Run(image, box, flip, out.data());
      ASSERT_EQ(out, expected) << image.height << "x" << image.width << "x" << channels << " box " << box.height << "x"
                               << box.width << " to " << height << "x" << width << (cubic ? " bicubic" : " bilinear");
      ++compared;
    });
    if (testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GE(compared, 600);
}

TEST(Pillow, DecodedFilesAreEqual) {
  const Golden golden;
  int compared = 0;
  for (const auto& one : golden.cases) {
    if (one["kind"] != "decode") continue;
    const std::string file = test::ReadBytes(kGolden / one["file"].get<std::string>());
    const auto image = DecodeImage(std::as_bytes(std::span(file)));
    ASSERT_TRUE(image) << one << image.error().message;
    EXPECT_EQ(image->height, one["size"][0].get<uint32_t>());
    EXPECT_EQ(image->width, one["size"][1].get<uint32_t>());
    golden.Compare(one, image->pixels);
    ++compared;
  }
  EXPECT_GE(compared, 14);
}

// A region has the pixels that the whole image has there, whatever the subsampling, progressive or not.
TEST(Decode, ARegionIsThatOfTheWholeImage) {
  std::mt19937_64 random(5);
  int compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden)) {
    const std::string file = test::ReadBytes(entry.path());
    const auto bytes = std::as_bytes(std::span(file));
    const auto whole = DecodeImage(bytes);
    if (!whole) continue;  // not an image, or a broken one
    Image part;
    for (int n = 0; n < 200; ++n) {
      PixelBox box;
      const auto region = [&](uint32_t width, uint32_t height) -> Result<PixelBox> {
        EXPECT_EQ(width, whole->width);
        EXPECT_EQ(height, whole->height);
        box.height = 1 + static_cast<uint32_t>(random() % height);
        box.width = 1 + static_cast<uint32_t>(random() % width);
        box.top = static_cast<uint32_t>(random() % (height - box.height + 1));
        box.left = static_cast<uint32_t>(random() % (width - box.width + 1));
        return box;
      };
      part.pixels.assign(part.pixels.size(), 0x55);
      const auto decoded = DecodeRegion(bytes, region, &part);
      ASSERT_TRUE(decoded) << entry.path() << decoded.error().message;
      for (uint32_t y = box.top; y < box.top + box.height; ++y) {
        ASSERT_EQ(std::memcmp(part.row(y) + box.left * 3, whole->row(y) + box.left * 3, box.width * 3), 0)
            << entry.path() << " row " << y << " of box " << box.top << " " << box.left << " " << box.height << " " << box.width;
      }
      ++compared;
    }
    const auto refused = DecodeRegion(bytes, [](uint32_t, uint32_t) -> Result<PixelBox> { return Fail(ErrorCode::kMismatch, "no"); }, &part);
    EXPECT_EQ(refused.error().message, "no");
  }
  EXPECT_GE(compared, 2000);
}

TEST(Decode, BrokenFilesAreRefused) {
  const auto decode = [](const std::string& bytes) { return DecodeImage(std::as_bytes(std::span(bytes))); };
  EXPECT_EQ(decode("").error().message, "the file is empty");
  EXPECT_EQ(decode("GIF89a").error().message, "neither a JPEG nor a PNG file");
  const std::string jpeg = test::ReadBytes(kGolden / "444.jpg"), png = test::ReadBytes(kGolden / "rgb.png");
  EXPECT_EQ(decode(jpeg.substr(0, jpeg.size() / 2)).error().message, "broken JPEG: the file ends early");
  EXPECT_EQ(decode(jpeg.substr(0, 30)).error().code, ErrorCode::kCorruption);
  for (size_t size = 8; size < png.size(); size += 101) EXPECT_FALSE(decode(png.substr(0, size))) << size;
  std::string damaged = png;
  damaged[100] ^= 1;
  EXPECT_EQ(decode(damaged).error().code, ErrorCode::kCorruption);
  std::string huge = png;  // a header that claims 2^31 - 1 pixels a side; its checksum is made to fit
  for (const size_t at : {16u, 20u}) huge.replace(at, 4, "\x7f\xff\xff\xff");
  EXPECT_FALSE(decode(huge));
}

TEST(Decode, ABombIsRefusedBeforeItIsAllocated) {
  Image image;
  EXPECT_EQ(ShapeRgbImage(1u << 16, 1u << 15, &image).error().message, "65536 x 32768 pixels: at most 268435456 in all");
  EXPECT_TRUE(image.pixels.empty());
  EXPECT_TRUE(ShapeRgbImage(3, 2, &image));
}

}  // namespace
}  // namespace fkdb
