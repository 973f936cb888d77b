// SPDX-License-Identifier: Apache-2.0
// Decoding and resampling against what Pillow gave (tests/golden/pillow), byte for byte.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "image/decode.h"
#include "image/resample.h"
#include "tests/db/test_files.h"

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
  nlohmann::json cases = nlohmann::json::parse(test::ReadBytes(kGolden / "cases.json"));
  std::string expected = test::ReadBytes(kGolden / "expected.bin");

  void Compare(const nlohmann::json& one, const std::vector<uint8_t>& pixels) const {
    ASSERT_EQ(pixels.size(), one["bytes"].get<size_t>()) << one;
    const size_t offset = one["offset"];
    for (size_t i = 0; i < pixels.size(); ++i) {
      ASSERT_EQ(pixels[i], static_cast<uint8_t>(expected[offset + i])) << "byte " << i << " of " << one;
    }
  }
};

TEST(Pillow, ResampledCropsAreEqual) {
  const Golden golden;
  int compared = 0;
  for (const auto& one : golden.cases) {
    if (one["kind"] != "resample") continue;
    const auto& s = one["source"];
    const auto& b = one["box"];
    const Image image = Source(s[0], s[1], s[2], s[3]);
    CropResizer resizer(one["size"][0], one["size"][1], *ParseInterpolation(one["interpolation"].get<std::string>()));
    std::vector<uint8_t> out(size_t{resizer.out_height()} * resizer.out_width() * image.channels);
    for (int again = 0; again < 2; ++again) {  // the second time from prepared weights
      resizer.Run(image, {b[0], b[1], b[2], b[3]}, one["flip"], out.data());
      golden.Compare(one, out);
    }
    ++compared;
  }
  EXPECT_GE(compared, 38);
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
  EXPECT_EQ(MakeRgbImage(1u << 16, 1u << 15).error().message,
            "65536 x 32768 pixels: at most 268435456 in all");
  EXPECT_TRUE(MakeRgbImage(3, 2));
}

}  // namespace
}  // namespace fkdb
