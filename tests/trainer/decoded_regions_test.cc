// SPDX-License-Identifier: Apache-2.0
#include "trainer/decoded_regions.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>

namespace fkdb {
namespace {

// Each sample tells the image, each pixel its place.
Image MakeImage(uint32_t height, uint32_t width, uint32_t channels, uint8_t tag) {
  Image image = {height, width, channels, std::vector<uint8_t>(size_t{height} * width * channels)};
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<uint8_t>(tag + i * 7);
  return image;
}

// The bytes of a region, as a device sees them that has the chunks one behind the other.
std::vector<uint8_t> Found(const DecodedRegions& regions, size_t image, uint32_t channels) {
  std::vector<uint8_t> all;
  for (const auto chunk : regions.chunks()) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(chunk.data());
    all.insert(all.end(), bytes, bytes + chunk.size());
  }
  EXPECT_EQ(all.size(), regions.bytes());
  const DecodedRegions::Region& region = regions.regions()[image];
  const auto begin = all.begin() + static_cast<ptrdiff_t>(region.at);
  return {begin, begin + static_cast<ptrdiff_t>(size_t{region.box.height} * region.box.width * channels)};
}

std::vector<uint8_t> Expected(const Image& image, const PixelBox& box) {
  std::vector<uint8_t> pixels;
  for (uint32_t y = box.top; y < box.top + box.height; ++y) {
    const uint8_t* row = image.row(y) + box.left * image.channels;
    pixels.insert(pixels.end(), row, row + box.width * image.channels);
  }
  return pixels;
}

TEST(DecodedRegions, AreFoundInTheChunksWhoeverAddsThemFirst) {
  constexpr size_t kImages = 24;
  DecodedRegions regions;
  for (int round = 0; round < 3; ++round) {
    std::vector<Image> images;
    std::vector<PixelBox> boxes;
    for (size_t i = 0; i < kImages; ++i) {
      images.push_back(MakeImage(1000, i % 5 == 0 ? 2000 : 300, 3, static_cast<uint8_t>(i * 11)));  // 6 MB, or 0.9
      boxes.push_back({static_cast<uint32_t>(i), 3, 990 - static_cast<uint32_t>(i), images[i].width - 5});
    }
    regions.Clear(kImages);
    {
      std::vector<std::jthread> threads;
      for (size_t first = 0; first < 4; ++first) {
        threads.emplace_back([&, first] {
          for (size_t i = first; i < kImages; i += 4) regions.Add(i, images[i], boxes[i]);
        });
      }
    }
    for (size_t i = 0; i < kImages; ++i) {
      EXPECT_EQ(regions.regions()[i].box, boxes[i]);
      ASSERT_TRUE(Found(regions, i, 3) == Expected(images[i], boxes[i])) << "image " << i;
    }
  }
  regions.Clear(0);
  EXPECT_EQ(regions.bytes(), 0u);
  EXPECT_TRUE(regions.chunks().empty());
}

// However the sizes fall, batch after batch: no more memory than the largest batch needs, but for what does not fit.
TEST(DecodedRegions, MemoryIsUsedAgain) {
  size_t allocated = 0, allocations = 0;
  const BatchMemory counted = {[&](size_t bytes) -> void* {
                                 allocated += bytes;
                                 ++allocations;
                                 return ::operator new[](bytes, std::align_val_t{64});
                               },
                               [](void* bytes) { ::operator delete[](bytes, std::align_val_t{64}); }};
  DecodedRegions regions(counted);
  const Image small = MakeImage(1000, 1000, 1, 0), large = MakeImage(3000, 3000, 1, 0);  // 4 and 1 of a chunk
  std::mt19937 random(1);
  size_t after_100 = 0;
  for (int batch = 0; batch < 400; ++batch) {
    regions.Clear(20);
    const size_t at = random() % 20;
    for (size_t i = 0; i < 20; ++i) regions.Add(i, i == at ? large : small, {0, 0, i == at ? 3000u : 1000u, i == at ? 3000u : 1000u});
    if (batch == 100) after_100 = allocations;
  }
  EXPECT_EQ(allocations, after_100);
  EXPECT_LE(allocated, 7 * DecodedRegions::kChunkBytes + 9000000);
}

}  // namespace
}  // namespace fkdb
