// SPDX-License-Identifier: Apache-2.0
#include "format/columns.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "format/recode.h"
#include "tests/format/test_labels.h"

namespace fkdb {
namespace {

using test::MakeMapSpec;
using test::MakeSpec;
using Bytes = std::vector<std::byte>;

// A group of records under one rule, as columns.
struct Group {
  ColumnRule rule;
  std::vector<Record> records;
  std::vector<Bytes> bytes;
  Columns heads;
  std::vector<Columns> layers;
  uint64_t drawn = 0;

  Group(const LabelSpec& spec, std::vector<Record> made, std::vector<uint32_t> ends, uint64_t seed = 0, bool sampler = true) : records(std::move(made)) {
    rule.spec = spec;
    rule.seed = seed;
    if (sampler) rule.sampler = *CropSampler::Make({});
    rule.layer_ends = std::move(ends);
    ColumnWriter writer(rule);
    for (const Record& record : records) {
      bytes.push_back(*EncodeRecord(spec, record));
      const auto added = writer.Add(*RecordView::Open(bytes.back(), spec));
      EXPECT_TRUE(added) << added.error().message;
    }
    EXPECT_EQ(writer.num_images(), records.size());
    drawn = writer.num_drawn();
    writer.Finish(&heads, &layers);
  }

  Result<ColumnReader> Read(uint32_t crops) const {
    FKDB_ASSIGN(ColumnReader reader, ColumnReader::OpenHeads(rule, static_cast<uint32_t>(records.size()), heads));
    FKDB_TRY(reader.OpenLayers({layers.begin(), layers.begin() + static_cast<ptrdiff_t>(rule.LayersFor(crops))}, crops));
    return reader;
  }

  void ExpectSame() const {
    auto reader = Read(kMaxCropsPerImage);
    ASSERT_TRUE(reader) << reader.error().message;
    for (size_t i = 0; i < records.size(); ++i) {
      const ImageHead head = reader->head(static_cast<uint32_t>(i));
      EXPECT_EQ(head.class_index, records[i].class_index);
      EXPECT_EQ(head.num_crops, records[i].num_crops());
      const auto again = reader->Next(records[i].key_hash);
      ASSERT_TRUE(again) << again.error().message;
      ASSERT_EQ(*again, bytes[i]) << test::Describe(rule.spec) << ", image " << i;
    }
    const auto finished = reader->Finish();
    EXPECT_TRUE(finished) << finished.error().message;
  }

  // The first crops of every second image.
  void ExpectFirst(uint32_t crops) const {
    auto reader = Read(crops);
    ASSERT_TRUE(reader) << reader.error().message;
    for (size_t i = 0; i < records.size(); ++i) {
      if (i % 2 == 0) {
        const auto skipped = reader->Skip();
        ASSERT_TRUE(skipped) << skipped.error().message;
        continue;
      }
      const auto got = reader->Next(records[i].key_hash);
      ASSERT_TRUE(got) << got.error().message;
      const auto decoded = DecodeRecord(*RecordView::Open(bytes[i], rule.spec));
      EXPECT_EQ(*got, *EncodeRecord(rule.spec, FirstCrops(rule.spec, *decoded, crops))) << test::Describe(rule.spec) << ", image " << i;
    }
    EXPECT_TRUE(reader->Finish());
  }
};

Record Skipped(std::mt19937_64& random) {
  Record record;
  record.key_hash = random();
  record.skip_reason = "cannot be read " + std::to_string(random() % 100);
  return record;
}

std::vector<Record> RandomRecords(const LabelSpec& spec, size_t images, uint32_t most_crops, std::mt19937_64& random) {
  std::vector<Record> records;
  for (size_t i = 0; i < images; ++i) {
    if (i % 5 == 3) {
      records.push_back(Skipped(random));
      continue;
    }
    const uint32_t sides[] = {1, 2, 7, 375, 500, 66000};
    const uint32_t crops = spec.is_map() ? spec.num_cells() : 1 + static_cast<uint32_t>(random() % most_crops);
    records.push_back(test::RandomRecord(spec, crops, random, sides[random() % 6], sides[random() % 6]));
    if (i % 4 == 2) records.back().class_index = kNoClass;
    if (i % 3 == 1) {
      records.back().ops.resize(crops);
      records.back().ops[random() % crops] = {{OpKind::kErase, 0, {1, 2, 3, 4}}, {OpKind::kCutmix, 9, {0.5f, 1, 2, 3, 4}}};
      records.back().ops[random() % crops] = {{OpKind::kHue, 0, {0.25f}}};
    }
  }
  return records;
}

std::vector<LabelSpec> AllSpecs() {
  std::vector<LabelSpec> specs;
  for (const LabelKind kind : test::kAllKinds) {
    for (const ValueEncoding values : {ValueEncoding::kF32, ValueEncoding::kF16, ValueEncoding::kBf16, ValueEncoding::kPacked}) {
      for (const BoxEncoding boxes : test::kAllBoxes) {
        if (values == ValueEncoding::kBf16 && kind != LabelKind::kLogits) continue;
        specs.push_back(MakeSpec(kind, 20, 3, values, boxes));
      }
    }
  }
  for (const ValueEncoding values : {ValueEncoding::kF16, ValueEncoding::kPacked}) {
    specs.push_back(MakeSpec(LabelKind::kMarginalSmoothing, 100000, 5, values));
    specs.push_back(MakeSpec(LabelKind::kMarginalSmoothing, 1000, 40, values));  // more than kMaxSeparate
    specs.push_back(MakeSpec(LabelKind::kMarginalRenorm, 20, 20, values));
    specs.push_back(MakeSpec(LabelKind::kMarginalSmoothing, 2, 1, values));
  }
  specs.push_back(MakeMapSpec(300, 3, 2, 5, ValueEncoding::kF16));
  specs.push_back(MakeMapSpec(300, 3, 15, 15, ValueEncoding::kF32));
  return specs;
}

TEST(Columns, EveryKindAndEncodingComesBackByteForByte) {
  std::mt19937_64 random(1);
  for (const LabelSpec& spec : AllSpecs()) {
    SCOPED_TRACE(test::Describe(spec));
    const Group group(spec, RandomRecords(spec, 12, 20, random), {3, 8, 15});
    EXPECT_EQ(group.drawn, 0u);
    group.ExpectSame();
    if (spec.is_map()) continue;
    for (const uint32_t crops : {1u, 3u, 4u, 8u, 14u, 19u}) group.ExpectFirst(crops);
  }
}

TEST(Columns, APaletteOfMoreClassesThanAByteCounts) {
  std::mt19937_64 random(2);
  for (const ValueEncoding values : {ValueEncoding::kF32, ValueEncoding::kPacked}) {
    const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 2000, 20, values);
    const Group group(spec, RandomRecords(spec, 4, 200, random), LayerEnds(200));
    EXPECT_FALSE(group.layers[0][1 + 16].empty());  // escapes
    group.ExpectSame();
    group.ExpectFirst(60);
  }
}

// Images whose boxes the recipe's own seed stands for, all of them.
TEST(Columns, DrawnBoxesAreNotStored) {
  std::mt19937_64 random(3);
  for (const ValueEncoding values : {ValueEncoding::kF16, ValueEncoding::kPacked}) {
    const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 20, 3, values);
    std::vector<Record> records;
    const auto sampler = CropSampler::Make({});
    for (size_t i = 0; i < 9; ++i) {
      records.push_back(test::RandomRecord(spec, 40, random, 500, 300 + static_cast<uint32_t>(i)));
      Record& record = records.back();
      for (uint32_t c = 0; c < 40; ++c) {
        const SampledCrop crop = sampler->Sample(17, record.key_hash, c, record.width, record.height);
        record.pixel_boxes[c] = crop.box;
        record.flips[c] = crop.flip;
      }
    }
    const Group drawn(spec, records, LayerEnds(40), 17);
    EXPECT_EQ(drawn.drawn, 9u);
    for (const Columns& layer : drawn.layers) EXPECT_TRUE(layer[0].empty());
    drawn.ExpectSame();
    drawn.ExpectFirst(11);
    EXPECT_EQ(Group(spec, records, LayerEnds(40), 18).drawn, 0u);
    const Group coded(spec, records, LayerEnds(40), 17, false);
    EXPECT_EQ(coded.drawn, 0u);
    coded.ExpectSame();
    // 31 bits of 36 and the flip: most of the rest is where a box of its size can lie.
    uint64_t bytes = 0;
    for (const Columns& layer : coded.layers) bytes += layer[0].size();
    EXPECT_LT(bytes * 8, 9 * 40 * 33u);
    // One box, or one flip, of another hand.
    records[2].pixel_boxes[39].top ^= 1;
    records[5].flips[20] ^= 1;
    const Group mixed(spec, records, LayerEnds(40), 17);
    EXPECT_EQ(mixed.drawn, 7u);
    mixed.ExpectSame();
    mixed.ExpectFirst(11);
  }
}

// FORMAT.md's worked record, coded by hand after SHARE_FORMAT.md.
TEST(Columns, WhatTheContractSays) {
  Record record;
  record.key_hash = 1;
  record.width = 500;
  record.height = 375;
  record.class_index = 0;
  record.pixel_boxes = {{12, 34, 200, 210}, {0, 0, 375, 500}};
  record.flips = {1, 0};
  record.indices = {1, 0, 0, 217};
  record.values = {0.75, 0.125, 0.5, 0.25};
  const Group group(MakeSpec(LabelKind::kMarginalSmoothing, 1000, 2, ValueEncoding::kPacked), {record}, {2});
  const auto planes = [](std::initializer_list<std::pair<uint32_t, size_t>> fields) {
    Column column;
    for (const auto& [value, bytes] : fields) {
      for (size_t byte = 0; byte < bytes; ++byte) column.push_back(static_cast<uint8_t>(value >> (8 * byte)));
    }
    return column;
  };
  EXPECT_EQ(group.heads, (Columns{planes({{500, 4}, {375, 4}, {0, 4}, {2, 2}, {3, 4}, {2, 1}, {0, 2}}), Column(16), {0, 1, 217}, {0, 0, 0}, {}, {}}));
  // Bits; ranks of 1, 0 and of 0, 217 in the palette 0, 1, 217, the second without the first; no escapes; tails; ratios.
  EXPECT_EQ(group.layers[0], (Columns{{0xa8, 0xc4, 0xc6, 0x8d, 0xff, 0xff, 0x01}, {1, 0}, {0, 1}, {}, {93, 77}, {14, 6}, {}, {}, {}, {}, {}, {}}));
  group.ExpectSame();
}

TEST(Columns, LayersAreAnEighthAQuarterAHalfAndAll) {
  EXPECT_EQ(LayerEnds(200), (std::vector<uint32_t>{25, 50, 100, 200}));
  EXPECT_EQ(LayerEnds(17), (std::vector<uint32_t>{3, 5, 9, 17}));
  EXPECT_EQ(LayerEnds(15), (std::vector<uint32_t>{15}));
  EXPECT_EQ(LayerEnds(0), (std::vector<uint32_t>{1}));
  ColumnRule rule;
  rule.layer_ends = {25, 50, 100, 200};
  EXPECT_EQ(rule.LayersFor(1), 1u);
  EXPECT_EQ(rule.LayersFor(25), 1u);
  EXPECT_EQ(rule.LayersFor(26), 2u);
  EXPECT_EQ(rule.LayersFor(65535), 4u);
}

TEST(Columns, ADamagedColumnIsRefusedByName) {
  std::mt19937_64 random(4);
  const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 20, 3, ValueEncoding::kPacked);
  const Group good(spec, RandomRecords(spec, 6, 20, random), {20});
  const auto error = [&](auto&& damage) {
    Group bad = good;
    damage(bad);
    auto reader = bad.Read(kMaxCropsPerImage);
    if (!reader) return reader.error().message;
    for (const Record& record : bad.records) {
      if (auto next = reader->Next(record.key_hash); !next) return next.error().message;
    }
    const auto finished = reader->Finish();
    return finished ? std::string() : finished.error().message;
  };
  EXPECT_EQ(error([](Group&) {}), "");
  EXPECT_EQ(error([](Group& g) { g.heads[0].pop_back(); }), "head column 0: 125 bytes, expected 126");
  EXPECT_EQ(error([](Group& g) { g.heads[2].push_back(0); }).substr(0, 14), "head column 2:");
  EXPECT_EQ(error([](Group& g) { g.heads[0][0] = g.heads[0][6] = g.heads[0][12] = 0, g.heads[0][18] = 255; }).substr(0, 22), "image 0 of the group: ");
  EXPECT_EQ(error([](Group& g) { g.layers[0][1].push_back(0); }).substr(0, 17), "layer 0: ranks 0:");
  EXPECT_EQ(error([](Group& g) { g.layers[0][1][0] = 200; }).substr(0, 19), "rank 200 in a palet");
  EXPECT_EQ(error([](Group& g) { g.layers[0][1][0] = 255; }).substr(0, 19), "rank 255 in a palet");
  EXPECT_EQ(error([](Group& g) { g.layers[0][2][0] = 255; }).substr(0, 19), "rank 256 in a palet");  // of 8 bits it would be 0, again
  EXPECT_EQ(error([](Group& g) { g.layers[0][0].push_back(0); }), "layer 0: bytes are left behind boxes and flips");
  EXPECT_NE(error([](Group& g) { g.layers[0][0].resize(3); }).find("its box is none of an image of"), std::string::npos);
  EXPECT_EQ(error([](Group& g) { g.heads[2][1] = g.heads[2][0]; }).substr(0, 6), "class ");
  const auto more = [](Group& g, size_t first, size_t last) {
    for (size_t c = first; c <= last; ++c) g.layers[0][c].insert(g.layers[0][c].end(), 4, uint8_t{0});
  };
  EXPECT_EQ(error([&](Group& g) { more(g, 4, 4); }), "layer 0: bytes are left behind escaped ranks");
  EXPECT_EQ(error([&](Group& g) { more(g, g.layers[0].size() - 4, g.layers[0].size() - 1); }), "layer 0: bytes are left behind operations");
  EXPECT_EQ(error([](Group& g) { g.heads[2][0] = 20; }), "class 20 in its palette, expected below 20 classes");
}

}  // namespace
}  // namespace fkdb
