// SPDX-License-Identifier: Apache-2.0
// Crops made by the GPU's kernels are image/'s, bit for bit: their bodies by the CPU, and the kernels on a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "cuda/gpu_crops.h"
#include "format/half.h"
#include "image/crop_inputs.h"
#include "tests/cuda/crop_bodies.h"
#include "tests/cuda/places.h"

namespace fkdb {
namespace {

// An image, some of its crops, and what image/ makes of them.
struct Case {
  Image image;
  InputSpec spec;
  CropFormat format;
  std::vector<PixelBox> boxes;
  std::vector<uint8_t> flips;
  std::vector<float> expected;  // (crops, channels, height, width)

  size_t samples() const { return size_t{format.channels} * format.height * format.width; }
  std::vector<ImageCrop> Crops(const uint8_t* pixels) const {
    std::vector<ImageCrop> crops;
    for (size_t i = 0; i < boxes.size(); ++i) crops.push_back({pixels, image.width * image.channels, boxes[i], flips[i], 0});
    return crops;
  }
};

Case MakeCase(uint32_t width, uint32_t height, uint32_t channels, uint32_t out_height, uint32_t out_width, bool cubic, std::mt19937_64& random) {
  Case made;
  made.image = {height, width, channels, std::vector<uint8_t>(size_t{width} * height * channels)};
  // Steep edges too: a cubic overshoots there.
  for (uint8_t& sample : made.image.pixels) sample = static_cast<uint8_t>(random() % 4 == 0 ? 255 * (random() % 2) : random());
  const Normalization n = DefaultNormalization(channels);
  made.spec = {out_height, out_width, cubic ? Interpolation::kBicubic : Interpolation::kBilinear, n.mean, n.std};
  made.format = {channels, out_height, out_width, cubic, false, {}, {}};
  for (uint32_t c = 0; c < channels; ++c) {
    made.format.mean[c] = static_cast<float>(n.mean[c]);
    made.format.std[c] = static_cast<float>(n.std[c]);
  }
  made.boxes = {{0, 0, height, width}, {height - 1, width - 1, 1, 1}, {0, width / 2, height, 1}, {height / 3, 0, 1, width}};
  for (int i = 0; i < 6; ++i) {
    PixelBox box;
    box.height = 1 + static_cast<uint32_t>(random() % height);
    box.width = 1 + static_cast<uint32_t>(random() % width);
    box.top = static_cast<uint32_t>(random() % (height - box.height + 1));
    box.left = static_cast<uint32_t>(random() % (width - box.width + 1));
    made.boxes.push_back(box);
  }
  for (size_t i = 0; i < made.boxes.size(); ++i) made.flips.push_back(i % 2);
  made.expected.resize(made.boxes.size() * made.samples());
  auto inputs = *CropInputs::Make(made.spec);
  inputs.Run(made.image, made.boxes, made.flips, made.expected.data());
  return made;
}

template <class Body>
void ForEachCase(Body body) {
  std::mt19937_64 random(1);
  for (const uint32_t channels : {1u, 3u}) {
    for (const bool cubic : {false, true}) {
      body(MakeCase(50, 37, channels, 24, 31, cubic, random));    // a little smaller, and larger
      body(MakeCase(300, 200, channels, 16, 16, cubic, random));  // much smaller
      body(MakeCase(9, 5, channels, 40, 33, cubic, random));      // larger
      body(MakeCase(3, 3000, channels, 2, 300, cubic, random));   // more weights than are held at a time
      body(MakeCase(1, 1, channels, 1, 1, cubic, random));
    }
  }
}

// `made` (crops, samples) of the case's numbers, expected ones rounded once to T.
template <class T>
void ExpectSame(const Case& one, const std::vector<T>& made, bool channels_last) {
  const size_t pixels = size_t{one.format.height} * one.format.width;
  for (size_t i = 0; i < made.size(); ++i) {
    const size_t crop = i / one.samples(), in_crop = i % one.samples();
    const size_t channel = in_crop / pixels, pixel = in_crop % pixels;
    T expected;
    FromFloat(one.expected[i], &expected);
    const T& found = made[crop * one.samples() + (channels_last ? pixel * one.format.channels + channel : in_crop)];
    ASSERT_EQ(std::memcmp(&found, &expected, sizeof(T)), 0)
        << "crop " << crop << " (" << one.boxes[crop].height << " x " << one.boxes[crop].width << "), sample " << in_crop;
  }
}

constexpr uint64_t kMostBytes = 30000;  // less than some crops need, more than several of others

template <class T>
void CheckBodies(const Case& one, bool channels_last) {
  CropFormat format = one.format;
  format.channels_last = channels_last;
  auto crops = one.Crops(one.image.pixels.data());
  std::vector<T> made(one.expected.size());
  for (const gpu::CropGroup& group : gpu::PlaceCrops(crops, format, kMostBytes)) {
    std::vector<uint8_t> between(group.between_bytes + 1, 77);
    test::RunCropBodies(format, crops.data(), group, between.data(), made.data());
    EXPECT_EQ(between.back(), 77) << "wrote behind the last row";
  }
  ExpectSame(one, made, channels_last);
}

TEST(Crops, TheKernelsBodiesGiveTheBitsOfTheHost) {
  ForEachCase([](const Case& one) {
    CheckBodies<float>(one, false);
    CheckBodies<Half>(one, false);
    CheckBodies<Bf16>(one, true);
  });
}

template <class T>
void CheckOnGpu(const Case& one, bool channels_last) {
  CropFormat format = one.format;
  format.channels_last = channels_last;
  const test::OnGpu<const uint8_t> pixels{std::span(one.image.pixels)};
  auto crops = one.Crops(pixels.get());
  const auto groups = gpu::PlaceCrops(crops, format, kMostBytes);
  const test::OnGpu<ImageCrop> crops_there{std::span(crops)};
  std::vector<T> made(one.expected.size());
  const test::OnGpu<T> made_there{std::span(made)};
  for (const gpu::CropGroup& group : groups) {
    std::vector<uint8_t> between(group.between_bytes);
    const test::OnGpu<uint8_t> between_there{std::span(between)};
    const auto done = gpu::CropImages(format, crops_there.get(), group, between_there.get(), made_there.get(), nullptr);
    ASSERT_TRUE(done) << done.error().message;
    ASSERT_TRUE(Wait(nullptr));
  }
  made_there.Back();
  ExpectSame(one, made, channels_last);
}

TEST(Crops, TheKernelsGiveTheBitsOfTheHost) {
  FKDB_END_WITHOUT_GPU("their bodies run on the CPU");
  ForEachCase([](const Case& one) {
    CheckOnGpu<float>(one, false);
    CheckOnGpu<Half>(one, false);
    CheckOnGpu<Bf16>(one, true);
  });
}

TEST(Crops, GroupsAreOfOneCropOrSmallEnough) {
  const CropFormat format = {3, 7, 10, false, false, {}, {}};
  const uint32_t heights[] = {1, 2, 30, 4, 4, 2, 1, 1};  // of 30 bytes a row
  std::vector<ImageCrop> crops;
  for (const uint32_t height : heights) crops.push_back({nullptr, 0, {0, 0, height, 1}, 0, 99});
  std::vector<std::vector<uint64_t>> found;
  for (const gpu::CropGroup& group : gpu::PlaceCrops(crops, format, 300)) {
    found.push_back({group.first, group.num_crops, group.between_bytes, group.tallest});
  }
  EXPECT_EQ(found, (std::vector<std::vector<uint64_t>>{{0, 2, 90, 2}, {2, 1, 900, 30}, {3, 3, 300, 4}, {6, 2, 60, 1}}));
  std::vector<uint64_t> between;
  for (const ImageCrop& crop : crops) between.push_back(crop.between);
  EXPECT_EQ(between, (std::vector<uint64_t>{0, 30, 0, 0, 120, 240, 0, 30}));
  EXPECT_TRUE(gpu::PlaceCrops({}, format, 300).empty());
}

TEST(Crops, WhatCannotBeDoneIsRefused) {
  if (!HasGpuKernels()) GTEST_SKIP() << "this build has no kernels";
  float out = 0;
  CropFormat format = {2, 4, 4, false, false, {}, {}};
  EXPECT_EQ(gpu::CropImages(format, nullptr, {0, 1, 0, 0}, nullptr, &out, nullptr).error().message, "2 channels: expected 1 or 3");
  format = {3, 0, 4, false, false, {}, {}};
  EXPECT_EQ(gpu::CropImages(format, nullptr, {0, 1, 0, 0}, nullptr, &out, nullptr).error().message, "inputs of no pixels");
}

}  // namespace
}  // namespace fkdb
