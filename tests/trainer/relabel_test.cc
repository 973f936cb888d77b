// SPDX-License-Identifier: Apache-2.0
// Training from label maps: fresh crops, each labelled by what the map of its image says of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "format/label_map.h"
#include "format/quantize.h"
#include "tests/db/test_files.h"
#include "tests/trainer/made_up.h"
#include "trainer/batch_loader.h"
#include "trainer/match.h"
#include "trainer/relabel.h"

namespace fkdb {
namespace {

using test::MadeUpPhotos;

const InputSpec kInput = {16, 12, Interpolation::kBilinear, {0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}};

class RelabelTest : public test::TempFolder {
 protected:
  static constexpr uint64_t kImages = 11;
  static constexpr uint32_t kCrops = 3, kClasses = 30;

  // Of the images of data_, image 4 skipped. rows x columns cells.
  Reader Build(uint32_t rows = 5, uint32_t columns = 7, ValueEncoding values = ValueEncoding::kF32) const {
    const LabelSpec spec = test::MakeMapSpec(kClasses, 4, rows, columns, values);
    test::RandomLabels set(kImages, spec, spec.num_cells(), 3);
    for (uint64_t i = 0; i < kImages; ++i) {
      const Image image = *data_.Load(i, nullptr);
      set.records[i].width = image.width;
      set.records[i].height = image.height;
    }
    Record& skipped = set.records[4];
    skipped.skip_reason = "broken";
    skipped.flips.clear(), skipped.indices.clear(), skipped.values.clear();
    LabelFileWriterOptions options;
    options.overwrite = true;
    EXPECT_TRUE(set.Build(Path("maps.fkdb"), options));
    return *Reader::Open(Path("maps.fkdb"));
  }
  Result<std::unique_ptr<BatchLoader>> Load(const Supervision& supervision, int workers) const {
    return BatchLoader::Make(data_, supervision, {kInput, 0, {{0, kCrops}, {kCrops, 1}}, 9, 1, 0, workers});
  }

  const MadeUpPhotos data_{kImages};
};

TEST_F(RelabelTest, ADrawnCropIsThatOfHardLabelsAndItsLabelIsPooled) {
  const Reader maps = Build();
  const auto supervision = RelabelSupervision(maps, {}, 7);
  ASSERT_TRUE(supervision) << supervision.error().message;
  EXPECT_EQ((*supervision)->images(), (std::vector<uint64_t>{0, 1, 2, 3, 5, 6, 7, 8, 9, 10}));
  EXPECT_EQ((*supervision)->spec().num_classes, kClasses);
  EXPECT_TRUE(CheckLabelSpec((*supervision)->spec()));
  const auto hard = *HardSupervision(data_, {}, 7);
  for (const int workers : {1, 4}) {
    const auto loader = *Load(**supervision, workers);
    uint64_t crops = 0;
    while (TrainBatch* batch = *loader->Next()) {
      ASSERT_EQ(batch->arrays.values.size(), batch->labels.size() * kClasses);
      for (size_t i = 0; i < batch->labels.images().size(); ++i) {
        const BatchImage& at = batch->labels.images()[i];
        const StepPlan one = {batch->pass, {batch->pass == 0 ? 0 : kCrops, at.num_crops}, {at.ordinal}};
        LabelBatch alone;
        ASSERT_TRUE(hard->FillLabels(one, &alone) && hard->AddCrops(one, 0, at.width, at.height, &alone));
        const RecordView map = *maps.Get(at.ordinal);
        for (uint32_t k = 0; k < at.num_crops; ++k, ++crops) {
          const uint32_t n = at.first_crop + k;
          EXPECT_EQ(batch->labels.boxes()[n], alone.boxes()[k]);
          EXPECT_EQ(batch->labels.flips()[n], alone.flips()[k]);
          std::vector<float> label(kClasses);
          ASSERT_TRUE(PoolLabelMap(map, alone.boxes()[k], label));
          const std::span got = std::span(batch->arrays.values).subspan(n * kClasses, kClasses);
          EXPECT_TRUE(std::ranges::equal(got, label));
          EXPECT_EQ(std::memcmp(batch->labels.values() + n * kClasses * sizeof(float), label.data(), kClasses * sizeof(float)), 0);
          EXPECT_TRUE(ValidateValues((*supervision)->spec(), n, label));
        }
      }
    }
    EXPECT_EQ(crops, 10 * (kCrops + 1));
  }
}

// Where a device crops and expands, it gets the same labels.
TEST_F(RelabelTest, ADeviceGetsTheSameLabels) {
  const Reader maps = Build();
  const auto supervision = *RelabelSupervision(maps, {}, 7);
  LoaderConfig config = {kInput, 0, {{0, kCrops}}, 9, 1, 0, 2};
  const auto here = *BatchLoader::Make(data_, *supervision, config);
  config.crop = config.expand = false;
  const auto there = *BatchLoader::Make(data_, *supervision, config);
  while (TrainBatch* batch = *here->Next()) {
    const auto other = there->Next();
    ASSERT_TRUE(other && *other);
    EXPECT_EQ(std::memcmp(batch->labels.values(), (*other)->labels.values(), batch->labels.size() * kClasses * sizeof(float)), 0);
    EXPECT_TRUE(std::ranges::equal(batch->labels.boxes(), (*other)->labels.boxes()));
  }
}

// A crop of one cell's pixels: torch's formula puts its one sample into the cell's middle. A map of one cell says the same of every crop.
TEST_F(RelabelTest, OneCellIsItsOwnLabel) {
  const LabelSpec spec = test::MakeMapSpec(kClasses, 4, 5, 7, ValueEncoding::kF16);
  std::mt19937_64 random(1);
  const Record record = test::RandomRecord(spec, spec.num_cells(), random, 70, 50);
  const auto bytes = *EncodeRecord(spec, record);
  const RecordView map = *RecordView::Open(bytes, spec);
  std::vector<float> label(kClasses), scores(kClasses), values(4);
  for (uint32_t cell = 0; cell < spec.num_cells(); ++cell) {
    ASSERT_TRUE(PoolLabelMap(map, {cell / 7 * 10, cell % 7 * 10, 10, 10}, label));
    std::fill(scores.begin(), scores.end(), 0.0f);
    map.CopyValues(cell, values.data());
    for (uint32_t k = 0; k < 4; ++k) scores[record.indices[cell * 4 + k]] = values[k];
    ASSERT_TRUE(Softmax(scores, 1, scores));
    for (uint32_t c = 0; c < kClasses; ++c) EXPECT_NEAR(label[c], scores[c], 1e-6) << cell;
  }
}

TEST_F(RelabelTest, TouchedCellsAreValidated) {
  const LabelSpec spec = test::MakeMapSpec(kClasses, 4, 5, 7, ValueEncoding::kF32);
  std::mt19937_64 random(1);
  const auto bytes = *EncodeRecord(spec, test::RandomRecord(spec, spec.num_cells(), random, 70, 50));
  const RecordView map = *RecordView::Open(bytes, spec);
  const PixelBox corner = {25, 10, 25, 30}, whole = {0, 0, 50, 70};
  std::vector<float> before(kClasses), after(kClasses);
  ASSERT_TRUE(PoolLabelMap(map, corner, before) && PoolLabelMap(map, whole, after));
  const_cast<uint16_t&>(map.indices_u16()[6 * 4 + 1]) = kClasses;
  const auto broken = PoolLabelMap(map, whole, after);
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code, ErrorCode::kCorruption);
  EXPECT_EQ(broken.error().message, "crop 6: index 30, expected below 30 classes");
  const_cast<uint16_t&>(map.indices_u16()[6 * 4 + 1]) = map.indices_u16()[6 * 4];
  EXPECT_EQ(PoolLabelMap(map, whole, after).error().message, "crop 6: an index comes twice");
  const_cast<float&>(map.values_f32()[5 * 4]) = std::numeric_limits<float>::infinity();
  EXPECT_EQ(PoolLabelMap(map, whole, after).error().message, "crop 5: score 0 is inf");
  ASSERT_TRUE(PoolLabelMap(map, corner, after));
  EXPECT_EQ(before, after);
}

// Scores as large as they may be, and a map that names all classes: one has no others to share what is left.
TEST_F(RelabelTest, LabelsAreDistributionsWhateverTheScores) {
  const LabelSpec spec = test::MakeMapSpec(2, 2, 1, 1, ValueEncoding::kF32);
  constexpr float kMost = std::numeric_limits<float>::max();
  const auto label = [&](float a, float b, uint32_t classes = 2) {
    LabelSpec wide = spec;
    wide.num_classes = classes;
    Record record;
    record.width = record.height = 9;
    record.flips = {0};
    record.indices = {1, 0};
    record.values = {a, b};
    const auto bytes = *EncodeRecord(wide, record);
    std::vector<float> p(classes);
    EXPECT_TRUE(PoolLabelMap(*RecordView::Open(bytes, wide), {0, 0, 9, 9}, p));
    return p;
  };
  EXPECT_EQ(label(kMost, 0), (std::vector<float>{0, 1}));
  EXPECT_EQ(label(-kMost, -kMost), (std::vector<float>{0.5, 0.5}));
  EXPECT_EQ(label(-900, -900), (std::vector<float>{0.5, 0.5}));
  EXPECT_EQ(label(-kMost, -900, 4), (std::vector<float>{0, 0, 0.5, 0.5}));
  EXPECT_EQ(label(0, 0, 4), (std::vector<float>{0.25, 0.25, 0.25, 0.25}));
}

TEST_F(RelabelTest, WhatGoesWrongIsNamed) {
  const Reader maps = Build();
  const std::string file = Path("maps.fkdb").string();
  const auto supervision = *RelabelSupervision(maps, {}, 7);
  const StepPlan step = {0, {0, 2}, {3}};
  LabelBatch labels;
  ASSERT_TRUE(supervision->FillLabels(step, &labels));
  const auto resized = supervision->AddCrops(step, 0, 1303, 1302, &labels);
  ASSERT_FALSE(resized);
  EXPECT_EQ(resized.error().code, ErrorCode::kMismatch);
  EXPECT_EQ(resized.error().message, maps.About(3, {ErrorCode::kMismatch, "it was 1303 x 1303 pixels when labelled and is 1303 x 1302 now"}).message);
  EXPECT_EQ(supervision->AddCrops({0, {0, 2}, {4}}, 0, 9, 9, &labels).error().message,
            maps.About(4, {ErrorCode::kNotFound, "it was skipped when labelled (broken)"}).message);
  EXPECT_EQ(RelabelSupervision(maps, {{0.9, 0.1}, {0.5, 2}}, 7).error().message, "crop scale 0.9,0.1 and ratio 0.5,2: expected LOW,HIGH with 0 < LOW <= HIGH");

  // Label maps are no crops, and crops no label maps.
  const auto db = DbSupervision(maps, CropOrder::kCycle, 1);
  ASSERT_FALSE(db);
  EXPECT_EQ(db.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(db.error().message, file + ": its labels are label maps, which hold no crops: fkdb-train --supervision relabel and the Python loaders train from them");
  test::RandomLabels crops(3);
  ASSERT_TRUE(crops.Build(Path("crops.fkdb")));
  const auto other = RelabelSupervision(*Reader::Open(Path("crops.fkdb")), {}, 7);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(other.error().message, Path("crops.fkdb").string() + ": its labels are of kind 'marginal-smoothing': --supervision relabel is for label maps, "
                                                                 "--supervision db for these");
}

}  // namespace
}  // namespace fkdb
