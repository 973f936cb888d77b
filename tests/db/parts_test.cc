// SPDX-License-Identifier: Apache-2.0
// Blocks, their packing, the names table, text and the manifest: the parts of a label file.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "db/block.h"
#include "db/block_packer.h"
#include "db/manifest.h"
#include "db/names_table.h"
#include "db/sha256.h"
#include "format/text.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

std::vector<std::vector<std::byte>> Records(std::initializer_list<size_t> sizes) {
  std::vector<std::vector<std::byte>> records;
  for (const size_t size : sizes) records.emplace_back(size, static_cast<std::byte>(records.size() + 1));
  return records;
}

TEST(Block, GivesItsRecordsBack) {
  const auto records = Records({16, 8, 4096, 24});
  const auto bytes = BuildBlock(77, records);
  EXPECT_EQ(bytes.size(), BlockBytes(4, 16 + 8 + 4096 + 24));
  const auto block = BlockView::Open(bytes, 77);
  ASSERT_TRUE(block);
  ASSERT_EQ(block->count(), 4u);
  EXPECT_EQ(block->record_bytes(), 16u + 8 + 4096 + 24);
  for (uint32_t i = 0; i < 4; ++i) {
    const auto record = block->Record(i);
    ASSERT_TRUE(record);
    EXPECT_TRUE(std::equal(record->begin(), record->end(), records[i].begin(), records[i].end()));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(record->data()) % 8, 0u);
  }
  EXPECT_EQ(BlockView::Open(bytes, 78).error().message, "block of image 78: it says it begins with image 77");
}

TEST(Block, EveryFlippedByteIsFound) {
  const auto good = BuildBlock(0, Records({16, 32, 8}));
  for (size_t at = 0; at < good.size(); ++at) {
    auto bytes = good;
    bytes[at] ^= std::byte{0x10};
    const auto block = BlockView::Open(bytes, 0);
    bool found = !block;
    for (uint32_t i = 0; block && i < block->count(); ++i) found = found || !block->Record(i);
    EXPECT_TRUE(found) << at;
  }
  for (size_t size = 0; size < good.size(); ++size) EXPECT_FALSE(BlockView::Open(std::span(good).first(size), 0)) << size;
}

TEST(Block, ANewerVersionIsUnsupported) {
  auto bytes = BuildBlock(0, Records({16}));
  bytes[8] = std::byte{2};
  const auto block = BlockView::Open(bytes, 0);
  EXPECT_EQ(block.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(block.error().message, "block of image 0: version 2, this fkdb reads 1");
}

// Whatever the record size, a block's last page is nearly full; the records keep their order.
TEST(BlockPacker, WastesLittleAtEveryRecordSize) {
  std::mt19937_64 random(1);
  for (size_t size = 304; size <= 20000; size = size * 5 / 4) {
    BlockPacker packer;
    uint64_t value_bytes = 0, page_bytes = 0, next = 0;
    const auto take = [&] {
      const auto block = packer.TakeBlock();
      uint64_t bytes = BlockBytes(block.size(), 0);
      for (const auto& record : block) {
        uint64_t number;
        std::memcpy(&number, record.data(), sizeof number);
        EXPECT_EQ(number, next++);
        bytes += record.size();
      }
      value_bytes += bytes;
      page_bytes += (bytes + 16 + 4095) / 4096 * 4096;
    };
    for (uint64_t i = 0; i < 2000; ++i) {
      std::vector<std::byte> record((size * (90 + random() % 21) / 100 + 7) / 8 * 8);
      std::memcpy(record.data(), &i, sizeof i);
      packer.Add(std::move(record));
      while (packer.ready()) take();
    }
    const double waste = 1 - static_cast<double>(value_bytes) / static_cast<double>(page_bytes);
    EXPECT_LT(waste, 0.02) << size;
    while (!packer.empty()) take();
    EXPECT_EQ(next, 2000u);
  }
}

TEST(BlockPacker, ALargeRecordIsABlockOfItsOwn) {
  BlockPacker packer;
  packer.Add(std::vector<std::byte>(1 << 20));
  packer.Add(std::vector<std::byte>(800));
  ASSERT_TRUE(packer.ready());
  EXPECT_EQ(packer.TakeBlock().size(), 1u);
  EXPECT_EQ(packer.TakeBlock().size(), 1u);
  EXPECT_TRUE(packer.empty());
}

std::vector<std::string> SomeKeys(size_t count) {
  std::vector<std::string> keys;
  for (size_t i = 0; i < count; ++i) keys.push_back("n0" + std::to_string(1440764 + i / 13 * 17) + "/img_" + std::to_string(100000 + i) + ".JPEG");
  std::sort(keys.begin(), keys.end());
  return keys;
}

TEST(NamesTable, FindsEveryKeyAndNoOther) {
  for (const size_t count : {0u, 1u, 15u, 16u, 17u, 1000u}) {
    const auto keys = SomeKeys(count);
    const auto bytes = BuildNamesTable(keys);
    ASSERT_TRUE(bytes);
    const auto table = NamesTable::Open(*bytes);
    ASSERT_TRUE(table) << table.error().message;
    ASSERT_EQ(table->size(), count);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(*table->Key(i), keys[i]);
      EXPECT_EQ(**table->Find(keys[i]), i);
      EXPECT_FALSE(*table->Find(keys[i] + "x"));
      EXPECT_FALSE(*table->Find(keys[i].substr(1)));
    }
    EXPECT_FALSE(*table->Find(""));
    EXPECT_EQ(*table->AllKeys(), keys);
  }
}

TEST(NamesTable, HoldsAnyBytes) {
  const std::vector<std::string> keys = {std::string("\0", 1), std::string("\0\xff", 2), "a", std::string(100000, 'a'), "\xff\xfe"};
  const auto bytes = BuildNamesTable(keys);
  ASSERT_TRUE(bytes);
  EXPECT_EQ(*NamesTable::Open(*bytes)->AllKeys(), keys);
}

TEST(NamesTable, TakesAboutElevenBytesAKey) {
  const auto keys = SomeKeys(100000);
  EXPECT_LT(static_cast<double>(BuildNamesTable(keys)->size()) / 100000, 12);
}

TEST(NamesTable, RefusesUnsortedAndDoubleKeys) {
  const std::vector<std::string> unsorted = {"b", "a"}, twice = {"a", "a"};
  EXPECT_EQ(BuildNamesTable(unsorted).error().message, "keys must be sorted and unique: 'a' comes after 'b'");
  EXPECT_EQ(BuildNamesTable(twice).error().message, "keys must be sorted and unique: 'a' comes after 'a'");
}

TEST(NamesTable, EveryFlippedByteAndTruncationIsFound) {
  const auto good = *BuildNamesTable(SomeKeys(40));
  for (size_t at = 0; at < good.size(); ++at) {
    auto bytes = good;
    bytes[at] ^= std::byte{0x01};
    EXPECT_FALSE(NamesTable::Open(bytes)) << at;
    EXPECT_FALSE(NamesTable::Open(std::span(good).first(at))) << at;
  }
}

TEST(Text, TellsUtf8AndEncodesTheRest) {
  EXPECT_TRUE(IsUtf8("n01440764/x.JPEG"));
  EXPECT_TRUE(IsUtf8("zw\xc3\xb6lf \xe2\x82\xac \xf0\x9f\x98\x80"));
  EXPECT_FALSE(IsUtf8("\xc3"));
  EXPECT_FALSE(IsUtf8("\xc0\xaf"));          // overlong
  EXPECT_FALSE(IsUtf8("\xed\xa0\x80"));      // a surrogate
  EXPECT_FALSE(IsUtf8("\xf4\x90\x80\x80"));  // above U+10FFFF
  EXPECT_EQ(ToBase64("Man"), "TWFu");
  EXPECT_EQ(ToBase64("Ma"), "TWE=");
  EXPECT_EQ(ToBase64("M"), "TQ==");
  EXPECT_EQ(ToBase64(""), "");
  EXPECT_EQ(FromBase64("TQ=="), "M");
  EXPECT_EQ(FromBase64("T*=="), std::nullopt);
  EXPECT_EQ(FromBase64("TQ="), std::nullopt);
  std::mt19937_64 random(1);
  for (int i = 0; i < 200; ++i) {
    std::string bytes(random() % 40, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_EQ(FromBase64(ToBase64(bytes)), bytes);
  }
  EXPECT_EQ(Printable("a\nb\xff\xc3\xa9"), "a\\x0ab\\xff\xc3\xa9");
}

TEST(ManifestText, SurvivesJson) {
  Manifest m = test::RandomLabels(3).recipe;
  m.spec.temperature = 0.1f;
  m.data_set.class_names = {"plain", "zw\xc3\xb6lf", "raw\xff"};
  m.augmentation.seed = ~0ull;
  m.num_images = 3;
  m.num_crops = 8;
  m.skipped = {1};
  m.digest = "sha256:00";
  m.complete = true;
  m.provenance = {"tool", "now", "CC0", "two\nlines"};
  const auto parsed = ParseManifest(ToJson(m));
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(RecipeDifference(m, *parsed), "");
  EXPECT_EQ(parsed->spec, m.spec);
  EXPECT_EQ(parsed->data_set, m.data_set);
  EXPECT_EQ(parsed->teachers, m.teachers);
  EXPECT_EQ(parsed->augmentation, m.augmentation);
  EXPECT_EQ(parsed->skipped, m.skipped);
  EXPECT_EQ(parsed->num_crops, 8u);
  EXPECT_EQ(parsed->digest, m.digest);
  EXPECT_TRUE(parsed->complete);
  EXPECT_EQ(parsed->provenance.notes, "two\nlines");
}

TEST(ManifestText, FaultsAreNamed) {
  const std::string good = ToJson(test::RandomLabels(3).recipe);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    const auto parsed = ParseManifest(text);
    return parsed ? std::string("accepted") : parsed.error().message;
  };
  EXPECT_EQ(with("{", "{"), "accepted");
  EXPECT_EQ(with("\"format_version\": 1", "\"format_version\": 2"),
            "label format version 2 is newer than this fkdb reads (1): update fkdb");
  EXPECT_EQ(with("\"features\": []", "\"features\": [\"mixup\"]"),
            "the label set needs feature 'mixup', which this fkdb (format version 1) does not have: update fkdb");
  EXPECT_EQ(with("\"top_k\": 5", "\"top_k\": -5"), "manifest: field 'labels.top_k' is not a whole number from 0 to 4294967295");
  EXPECT_EQ(with("\"top_k\": 5", "\"top_k\": 11"), "manifest: labels: top-k 11: expected 1 to the number of classes, 10");
  EXPECT_EQ(with("\"top_k\": 5,", ""), "manifest: field 'labels.top_k' is missing");
  EXPECT_EQ(with("\"f16\"", "\"f8\""), "value encoding 'f8' is not known to this version of fkdb; it knows f32, f16, bf16, packed");
  EXPECT_EQ(with("\"class0\"", "7"), "manifest: field 'data_set.class_names[0]' is not text");
  EXPECT_EQ(with("\"skipped\": []", "\"skipped\": [4]"), "manifest: field 'skipped' is not an ascending list of ordinals");
  EXPECT_EQ(with("\"format\": \"fkdb\"", "\"format\": \"ffcv\""), "manifest: field 'format' is not \"fkdb\"");
  EXPECT_EQ(ParseManifest("{").error().message, "manifest: not a JSON object");
  EXPECT_EQ(ParseManifest("[]").error().message, "manifest: not a JSON object");
  EXPECT_EQ(ParseManifest(std::string(1000000, '[')).error().message, "manifest: not a JSON object");
}

TEST(ManifestText, TheFirstDifferenceOfTwoRecipesIsNamed) {
  const Manifest a = test::RandomLabels(3).recipe;
  Manifest b = a;
  b.augmentation.seed = 9;
  EXPECT_EQ(RecipeDifference(a, b), "augmentation.seed: 0 in the file, 9 asked for");
  b = a;
  b.teachers[0].sha256 = "11";
  EXPECT_EQ(RecipeDifference(a, b), "teachers[0].sha256: \"00\" in the file, \"11\" asked for");
  b.teachers.push_back(b.teachers[0]);
  EXPECT_EQ(RecipeDifference(a, b), "teachers: [{\"name\":\"teacher.pt\",\"sha256\":\"00\"}] in the file, "
                                    "[{\"name\":\"teacher.pt\",\"sha256\":\"11\"},{\"name\":\"teacher.pt\",\"sha256\":\"11\"}] asked for");
}

}  // namespace
}  // namespace fkdb
