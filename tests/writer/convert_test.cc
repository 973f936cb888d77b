// SPDX-License-Identifier: Apache-2.0
// The readers of other systems' label files: what they make of good bytes, and of hostile ones.
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "format/half.h"
#include "tests/db/test_files.h"
#include "writer/convert/array.h"
#include "writer/convert/box_fractions.h"
#include "writer/convert/fkd.h"
#include "writer/convert/folder_order.h"
#include "writer/convert/label_files.h"
#include "writer/convert/pickle_writer.h"
#include "writer/convert/torch_file.h"

namespace fkdb {
namespace {

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

// What reading a label file of these bytes says; empty if it is one.
Error WhatIsWrong(std::string_view bytes) {
  const auto file = TorchFile::Parse(Bytes(bytes));
  if (!file) return file.error();
  const auto labels = ParseFkd(file->root(), 10);
  return labels ? Error{} : labels.error();
}

TEST(BadPickles, EachIsRefusedWithItsOwnError) {
  const auto cases = nlohmann::json::parse(test::ReadBytes(std::filesystem::path(FKDB_SOURCE_DIR) / "tests/bad/pickles.json"));
  ASSERT_GE(cases.size(), 59u);
  for (const auto& bad : cases) {
    const Error error = WhatIsWrong(FromHex(bad["file"]));
    EXPECT_EQ(error.message, bad["error"].get<std::string>()) << bad["name"];
    EXPECT_EQ(static_cast<int>(error.code), bad["code"].get<int>()) << bad["name"] << ": " << error.message;
  }
}

// A label file of two crops, as PickleWriter makes it.
std::string SmallFile() {
  LabelSpec spec;
  spec.num_classes = 10;
  spec.top_k = 2;
  spec.values = ValueEncoding::kF32;
  Record record;
  record.width = 50;
  record.height = 40;
  record.pixel_boxes = {{1, 2, 3, 4}, {0, 0, 40, 50}};
  record.flips = {0, 1};
  record.indices = {3, 1, 0, 9};
  record.values = {0.5f, 0.25f, 0.9f, 0.01f};
  const auto bytes = MakeFkdFile(spec, record, "x").value();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(FkdFile, IsReadBackAndNoByteOfItIsTakenOnTrust) {
  const std::string good = SmallFile();
  const auto file = TorchFile::Parse(Bytes(good));
  ASSERT_TRUE(file) << file.error().message;
  const auto labels = ParseFkd(file->root(), 10);
  ASSERT_TRUE(labels) << labels.error().message;
  EXPECT_EQ(labels->form, LabelForm::kTopK);
  EXPECT_EQ(labels->indices, (std::vector<uint32_t>{3, 1, 0, 9}));
  EXPECT_EQ(labels->values, (std::vector<float>{0.5f, 0.25f, 0.9f, 0.01f}));
  EXPECT_EQ(labels->flips, (std::vector<uint8_t>{0, 1}));
  EXPECT_EQ(ExactPixels(labels->fraction_boxes[0], 50, 40, false), (PixelBox{1, 2, 3, 4}));
  // The zip's checksums cover what the labels are made of: a changed byte is found, or changes nothing.
  uint64_t found = 0;
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    const auto changed = TorchFile::Parse(Bytes(bad));
    const auto read = changed ? ParseFkd(changed->root(), 10) : Fail(changed.error());
    if (!read) {
      ++found;
      continue;
    }
    EXPECT_EQ(read->indices, labels->indices) << i;
    EXPECT_EQ(read->values, labels->values) << i;
    EXPECT_EQ(read->flips, labels->flips) << i;
    EXPECT_EQ(read->fraction_boxes, labels->fraction_boxes) << i;
  }
  EXPECT_GT(found, good.size() / 2);
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(WhatIsWrong(good.substr(0, length)).message.empty()) << length;
  }
}

TEST(Array, ReadsAnyOrderAndNothingOutside) {
  const float data[] = {0, 1, 2, 3, 4, 5};
  const auto bytes = std::as_bytes(std::span(data));
  const Array rows = Array::Dense(DType::kF32, {2, 3}, false, bytes).value();
  EXPECT_EQ(rows.Floats(), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(rows.Rows(1, 1).Floats(), (std::vector<float>{3, 4, 5}));
  EXPECT_EQ(rows.Column(1).Floats(), (std::vector<float>{1, 4}));
  const Array columns = Array::Dense(DType::kF32, {2, 3}, true, bytes).value();
  EXPECT_EQ(columns.Floats(), (std::vector<float>{0, 2, 4, 1, 3, 5}));
  EXPECT_EQ(columns.Rows(1, 1).Floats(), (std::vector<float>{1, 3, 5}));
  EXPECT_EQ(columns.Column(2).Floats(), (std::vector<float>{4, 5}));
  EXPECT_EQ(Array::Make(DType::kF32, {2, 2}, {1, 2}, bytes)->Floats(), (std::vector<float>{0, 2, 1, 3}));
  EXPECT_EQ(Array::Make(DType::kF32, {}, {}, bytes)->Floats(), (std::vector<float>{0}));
  EXPECT_TRUE(Array::Make(DType::kF32, {0, 5}, {9, 9}, bytes)->Floats().empty());
  EXPECT_TRUE(Array::Make(DType::kF32, {2, 3}, {3, 1}, bytes));
  EXPECT_FALSE(Array::Make(DType::kF32, {2, 3}, {4, 1}, bytes));
  EXPECT_FALSE(Array::Make(DType::kF32, {7}, {0}, bytes));
  EXPECT_FALSE(Array::Make(DType::kF32, {2}, {UINT64_MAX}, bytes));
  EXPECT_FALSE(Array::Dense(DType::kF32, {UINT64_MAX, 2}, false, bytes));
  EXPECT_EQ(rows.Integers().value(), (std::vector<int64_t>{0, 1, 2, 3, 4, 5}));
  const double odd[] = {1, 2.5};
  EXPECT_EQ(Array::Dense(DType::kF64, {2}, false, std::as_bytes(std::span(odd)))->Integers().error().message, "2.5 where a whole number belongs");
}

// float32 gives every box of whole pixels back; float16 loses half of them in a photo of 12 megapixels.
TEST(BoxFractions, AreExactWhereTheyCanBe) {
  std::mt19937 random(5);
  const auto lost = [&](uint32_t width, uint32_t height, bool half) {
    constexpr int kBoxes = 20000;
    int changed = 0;
    for (int i = 0; i < kBoxes; ++i) {
      PixelBox box;
      box.height = 1 + random() % height;
      box.width = 1 + random() % width;
      box.top = random() % (height - box.height + 1);
      box.left = random() % (width - box.width + 1);
      const FractionBox fractions = ToFractions(box, width, height, half);
      const auto back = ExactPixels(fractions, width, height, half);
      if (back && *back == box) continue;
      ++changed;
      if (!half) ADD_FAILURE() << box.top << ' ' << box.left << ' ' << box.height << ' ' << box.width << " in " << width << " x " << height;
      // Either way the same fractions are written again.
      if (back) {
        EXPECT_EQ(ToFractions(*back, width, height, half), fractions);
      }
    }
    return static_cast<double>(changed) / kBoxes;
  };
  for (const auto& [width, height] : {std::pair(1u, 1u), {500u, 375u}, {640u, 480u}, {2848u, 4288u}, {65535u, 1u}}) EXPECT_EQ(lost(width, height, false), 0);
  EXPECT_EQ(lost(500, 375, true), 0);
  EXPECT_NEAR(lost(1600, 1200, true), 0.005, 0.02);
  EXPECT_NEAR(lost(4288, 2848, true), 0.55, 0.1);
  EXPECT_FALSE(ExactPixels({0.123f, 0.1f, 0.5f, 0.5f}, 500, 375, false));
}

TEST(FolderOrder, IsTorchvisions) {
  // Bytewise, "a-b/" comes before "a/".
  const std::vector<std::string> keys = {"a-b/1", "a/1-2", "a/1", "a/c-d/1", "a/c/1", "b/1"};
  const FolderOrder order(keys);
  const auto at = [&](uint64_t number) { return keys[order.ordinal(number)]; };
  EXPECT_EQ(at(0), "a/1");
  EXPECT_EQ(at(1), "a/1-2");
  EXPECT_EQ(at(2), "a/c/1");
  EXPECT_EQ(at(3), "a/c-d/1");
  EXPECT_EQ(at(4), "a-b/1");
  EXPECT_EQ(at(5), "b/1");
  for (uint64_t i = 0; i < keys.size(); ++i) EXPECT_EQ(order.ordinal(order.number(i)), i);
}

TEST(LabelNames, EndAtTheFirstDotOfTheFileName) {
  EXPECT_EQ(LabelNameOf("n.1/x.y.JPEG"), "n.1/x");
  EXPECT_EQ(LabelNameOf("x"), "x");
  EXPECT_EQ(LabelNameOf("a/.x"), "a/");
  EXPECT_EQ(LastParts("/a/b/c/x", 2), "b/c/x");
  EXPECT_EQ(LastParts("b/c/x", 2), "b/c/x");
  EXPECT_EQ(LastParts("c/x", 2), std::nullopt);
  EXPECT_EQ(LastParts("c/x", 0), "x");
  const std::vector<std::string> keys = {"a/x.1.png", "a/y.png", "b/x.png", "a/x.2.png"};
  const SharedName shared = FindSharedName(keys, LabelNameOf);
  EXPECT_EQ(shared.first + " " + shared.second, "a/x.1.png a/x.2.png");
  EXPECT_EQ(FindSharedName(std::span(keys).first(3), LabelNameOf).first, "");
  // Below the last folder alone, two of these are one.
  const auto last = [](std::string_view key) { return LastParts(LabelNameOf(key), 0).value(); };
  EXPECT_EQ(FindSharedName(std::span(keys).first(3), last).second, "b/x.png");
}

}  // namespace
}  // namespace fkdb
