// SPDX-License-Identifier: Apache-2.0
// Labellings that begin from a label set: more crops for it, other labels for its crops, the same labels again.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "db/rewrite.h"
#include "tests/writer/fake_job.h"
#include "writer/probe.h"
#include "writer/recheck.h"
#include "writer/recipe.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
using test::FakeData;
using test::FakeTeacher;
using StoredCropsTest = test::LabelJob;

// Another teacher for the crops of a label set, whatever drew them.
TEST_F(StoredCropsTest, TheCropsOfAnotherLabelSetAreLabelled) {
  data.broken = {7};
  options.max_bad = kAnyBad;
  options.augmentation.seed = 5;
  const auto first = Run("first.fkdb");
  ASSERT_TRUE(first) << first.error().message;
  LabelJobOptions other = options;
  other.boxes_from = Path("first.fkdb");
  other.augmentation = {};  // crops, seed and sampling are the label set's
  other.augmentation.input_height = other.augmentation.input_width = 8;
  other.augmentation.mean = {0.5};
  other.augmentation.std = {0.25};

  EXPECT_EQ(ProbeTeachers(data, teacher, other, 0)->crops, 16u);

  // The same teacher says the same.
  const auto same = LabelImages(data, teacher, Path("same.fkdb"), other);
  ASSERT_TRUE(same) << same.error().message;
  EXPECT_EQ(same->manifest.digest, first->manifest.digest);
  EXPECT_EQ(same->manifest.boxes_from, first->manifest.digest);
  EXPECT_EQ(same->manifest.augmentation, first->manifest.augmentation);
  EXPECT_EQ(same->manifest.skipped, std::vector<uint64_t>{7});

  // Fractions stay fractions, and are labelled as the pixels they show.
  test::RandomLabels set(61, test::MakeSpec(LabelKind::kHard, 3, 1, ValueEncoding::kF32, BoxEncoding::kFractionF16), 6);
  for (uint64_t i = 0; i < 61; ++i) {
    set.keys[i] = data.keys()[i];
    Record& record = set.records[i];
    record.key_hash = Hash64(data.keys()[i]);
    record.width = 24;
    record.height = 20 + static_cast<uint32_t>(i % 7);
    record.content_hash = {};
  }
  set.recipe.data_set = Describe(data, true);
  set.recipe.augmentation.crops = 6;
  ASSERT_TRUE(set.Build(Path("fractions.fkdb"))) << "fractions";
  other.boxes_from = Path("fractions.fkdb");
  data.broken = {};
  EXPECT_EQ(ProbeTeachers(data, teacher, other, 0)->crops, 16u);
  const auto made = LabelImages(data, teacher, Path("of_fractions.fkdb"), other);
  ASSERT_TRUE(made) << made.error().message;
  const auto boxes = Reader::Open(Path("fractions.fkdb")), labels = Reader::Open(Path("of_fractions.fkdb"));
  EXPECT_EQ(labels->spec().boxes, BoxEncoding::kFractionF16);
  for (uint64_t i = 0; i < 61; ++i) {
    const auto a = boxes->Get(i), b = labels->Get(i);
    ASSERT_EQ(a->num_crops(), b->num_crops());
    for (uint32_t crop = 0; crop < a->num_crops(); ++crop) {
      EXPECT_EQ(a->fraction_box(crop), b->fraction_box(crop));
      EXPECT_EQ(a->flip(crop), b->flip(crop));
    }
  }
}

TEST_F(StoredCropsTest, CropsThatAreNotOfTheseImagesAreRefused) {
  ASSERT_TRUE(Run("first.fkdb"));
  options.boxes_from = Path("first.fkdb");
  options.file.overwrite = true;  // what is refused in mid-work leaves a partial file
  const auto refused = [&](const DataSet& images) {
    const auto result = LabelImages(images, teacher, Path("no.fkdb"), options);
    EXPECT_FALSE(result);
    return result ? Error{} : result.error();
  };
  const std::string first = Path("first.fkdb").string();
  const Error fewer = refused(FakeData(60));
  EXPECT_EQ(fewer.code, ErrorCode::kMismatch);
  EXPECT_TRUE(fewer.message.starts_with(first + ": cannot label its crops: ")) << fewer.message;
  data.changed = {3};
  const Error changed = refused(data);
  EXPECT_EQ(changed.code, ErrorCode::kMismatch);
  EXPECT_EQ(changed.message, "image 'a/1003.png': it changed since it was labelled; the stored crops of it are of another file");
  data.changed = {};
  options.append_to = Path("first.fkdb");
  EXPECT_EQ(refused(data).message, "more crops for a label set, or labels for another one's crops: not both");
  options.append_to.clear();

  test::RandomLabels set(61, options.spec, 2);
  for (uint64_t i = 0; i < 61; ++i) {
    set.keys[i] = data.keys()[i];
    set.records[i].key_hash = Hash64(data.keys()[i]);
    set.records[i].width = i == 9 ? 25 : 24;
    set.records[i].height = 20 + static_cast<uint32_t>(i % 7);
    for (PixelBox& box : set.records[i].pixel_boxes) box = {0, 0, 10, 10};
    set.records[i].content_hash = {};
  }
  set.recipe.data_set = Describe(data, true);
  ASSERT_TRUE(set.Build(Path("other.fkdb")));
  options.boxes_from = Path("other.fkdb");
  EXPECT_EQ(refused(data).message, "image 'a/1009.png': it was 25 x 22 pixels when its crops were drawn and is 24 x 22 now");
  fs::remove(Path("other.fkdb"));
  set.records[9].width = 24;
  set.records[11].ops = {{}, {{OpKind::kSolarize, 0, {128}}}};
  set.recipe.imported_from = "ml-dr";
  ASSERT_TRUE(set.Build(Path("other.fkdb")));
  EXPECT_EQ(refused(data).message, "image 'a/1011.png': its crops were changed by 'solarize' of the system that they were imported from");
}

TEST_F(StoredCropsTest, ARecheckFindsWhatTheTeachersSayNow) {
  data.broken = {2};
  options.max_bad = kAnyBad;
  options.spec = test::MakeSpec(LabelKind::kFull, 3, 0, ValueEncoding::kF32);
  ASSERT_TRUE(Run("l.fkdb"));
  auto again = *RecheckOptions(Path("l.fkdb"));
  for (const double share : {1.0, 0.5, 0.01}) {
    for (const int threads : {1, 3}) {
      again.threads = threads;
      const auto same = RecheckLabels(data, teacher, Path("l.fkdb"), again, share);
      ASSERT_TRUE(same) << same.error().message;
      EXPECT_EQ(same->images, share == 1 ? 60u : share == 0.5 ? 29u : 8u);  // whole groups, the last one of 5; one image was skipped
      EXPECT_EQ(same->crops, same->images * 6);
      EXPECT_EQ(same->identical, same->crops);
      EXPECT_EQ(same->same_top1, same->crops);
      EXPECT_EQ(same->mean_distance, 0);
      EXPECT_EQ(same->worst_distance, 0);
    }
  }

  // Another environment, the same file.
  teacher.drift = 0.5f;
  const auto drifted = RecheckLabels(data, teacher, Path("l.fkdb"), again, 1);
  ASSERT_TRUE(drifted) << drifted.error().message;
  ASSERT_TRUE(Run("now.fkdb"));
  const auto then = Reader::Open(Path("l.fkdb")), now = Reader::Open(Path("now.fkdb"));
  double sum = 0, worst = 0;
  uint64_t same_top1 = 0;
  for (uint64_t i = 0; i < 61; ++i) {
    for (uint32_t crop = 0; crop < then->Get(i)->num_crops(); ++crop) {
      float p[3], q[3];
      then->Get(i)->CopyValues(crop, p);
      now->Get(i)->CopyValues(crop, q);
      double distance = 0;
      for (int c = 0; c < 3; ++c) distance += std::abs(double{p[c]} - q[c]) / 2;
      sum += distance;
      worst = std::max(worst, distance);
      same_top1 += std::max_element(p, p + 3) - p == std::max_element(q, q + 3) - q;
    }
  }
  EXPECT_EQ(drifted->identical, 0u);
  EXPECT_NEAR(drifted->mean_distance, sum / 360, 1e-9);
  EXPECT_NEAR(drifted->worst_distance, worst, 1e-9);
  EXPECT_EQ(drifted->same_top1, same_top1);
  EXPECT_LT(same_top1, 360u);
  teacher.drift = 0;

  // Crops that were appended made batches of their own; their labels differ in the last bits.
  LabelJobOptions more = options;
  more.append_to = Path("l.fkdb");
  more.augmentation.crops = 4;
  ASSERT_TRUE(LabelImages(data, teacher, Path("more.fkdb"), more));
  const auto of_more = RecheckLabels(data, teacher, Path("more.fkdb"), *RecheckOptions(Path("more.fkdb")), 1);
  ASSERT_TRUE(of_more) << of_more.error().message;
  EXPECT_EQ(of_more->crops, 600u);
  EXPECT_LT(of_more->worst_distance, 1e-3);

  EXPECT_EQ(RecheckLabels(data, teacher, Path("l.fkdb"), again, 1.5).error().message, "a share of 1.5 of the images: expected more than 0, at most 1");
  EXPECT_EQ(RecheckLabels(FakeData(60), teacher, Path("l.fkdb"), again, 1).error().code, ErrorCode::kMismatch);
  test::WriteBytes(Path("fake.pt"), "other weights");
  const auto other = RecheckLabels(data, teacher, Path("l.fkdb"), again, 1);
  EXPECT_TRUE(other.error().message.starts_with(Path("l.fkdb").string() + ": cannot be checked with these: teachers[0].sha256: \"")) << other.error().message;
  // Of labels from elsewhere nobody knows the teacher.
  test::RandomLabels set(61, options.spec, 2);
  for (uint64_t i = 0; i < 61; ++i) {
    set.keys[i] = data.keys()[i];
    set.records[i].key_hash = Hash64(data.keys()[i]);
    set.records[i].width = 24;
    set.records[i].height = 20 + static_cast<uint32_t>(i % 7);
    for (PixelBox& box : set.records[i].pixel_boxes) box = {0, 0, 10, 10};
    set.records[i].content_hash = {};
  }
  set.recipe.data_set = Describe(data, true);
  set.recipe.teachers.clear();
  set.recipe.teacher_batch_size = 0;
  set.recipe.augmentation = options.augmentation;
  set.recipe.augmentation.crops = 2;
  set.recipe.augmentation.wide_samples = kHighByte;
  set.recipe.imported_from = "fkd";
  ASSERT_TRUE(set.Build(Path("imported.fkdb")));
  const auto imported = RecheckLabels(data, teacher, Path("imported.fkdb"), *RecheckOptions(Path("imported.fkdb")), 1);
  EXPECT_FALSE(imported);  // image 2 is broken, and there --skip-bad does not help
  data.broken = {};
  const auto readable = RecheckLabels(data, teacher, Path("imported.fkdb"), *RecheckOptions(Path("imported.fkdb")), 1);
  ASSERT_TRUE(readable) << readable.error().message;
  EXPECT_EQ(readable->crops, 122u);
  EXPECT_GT(readable->mean_distance, 0.05);
}

// Crops 6 to 11 of a label set that had 6: the old ones untouched, the new ones those a build of 12
// would have drawn, with the labels of the batches they make by themselves.
TEST_F(StoredCropsTest, AppendedCropsComeAfterTheOldOnes) {
  for (const ValueEncoding values : {ValueEncoding::kF32, ValueEncoding::kPacked}) {
    options.spec.values = values;
    options.file.overwrite = true;
    options.append_to.clear();
    options.augmentation.crops = 6;
    const std::string old = Digest("old.fkdb");
    options.augmentation.crops = 12;
    ASSERT_TRUE(Run("twelve.fkdb"));
    options.augmentation.crops = 6;
    options.append_to = Path("old.fkdb");
    teacher.sizes_.clear();
    const auto appended = Run("more.fkdb");
    ASSERT_TRUE(appended) << appended.error().message;
    EXPECT_EQ(appended->manifest.num_crops, 61u * 12);
    EXPECT_EQ(appended->manifest.augmentation.crops, 12u);
    EXPECT_EQ(appended->manifest.extends, old);
    EXPECT_EQ(teacher.sizes_.size(), 7u * 3 + 2) << "only the new crops are labelled";

    SubsetOptions first_six;
    first_six.file.overwrite = true;
    first_six.crops = 6;
    EXPECT_EQ(SubsetLabelSet(Path("more.fkdb"), Path("first.fkdb"), first_six)->digest, old);
    const auto more = Reader::Open(Path("more.fkdb")), twelve = Reader::Open(Path("twelve.fkdb"));
    for (uint64_t i = 0; i < 61; ++i) {
      for (uint32_t crop = 0; crop < 12; ++crop) {
        EXPECT_EQ(more->Get(i)->pixel_box(crop), twelve->Get(i)->pixel_box(crop));
        EXPECT_EQ(more->Get(i)->flip(crop), twelve->Get(i)->flip(crop));
      }
    }
    for (const int threads : {1, 3}) {
      options.threads = threads;
      EXPECT_EQ(Digest("threads.fkdb"), appended->manifest.digest);
    }
  }
}

// A teacher whose outputs do not depend on the batch: then nothing tells an extended label set from
// one built in one go.
TEST_F(StoredCropsTest, AppendedCropsAreThoseOfOneBuildWhereBatchesDoNotMatter) {
  options.batch_size = 1;
  options.augmentation.crops = 9;
  const std::string whole = Digest("whole.fkdb");
  options.augmentation.crops = 2;
  ASSERT_TRUE(Run("0.fkdb"));
  int n = 0;
  for (const uint32_t crops : {3u, 4u}) {
    options.append_to = Path(std::to_string(n) + ".fkdb");
    options.augmentation.crops = crops;
    ASSERT_TRUE(Run(std::to_string(++n) + ".fkdb"));
  }
  EXPECT_EQ(Reader::Open(Path("2.fkdb"))->manifest().digest, whole);
}

TEST_F(StoredCropsTest, AStoppedAppendResumes) {
  options.max_bad = kAnyBad;
  data.broken = {3};
  ASSERT_TRUE(Run("old.fkdb"));
  options.append_to = Path("old.fkdb");
  options.augmentation.crops = 5;
  const std::string digest = Digest("whole.fkdb");
  std::atomic<bool> stop = false;
  options.stop = &stop;
  options.file.commit_seconds = 0;
  options.file.block_bytes = 256;
  options.progress = [&](const LabelProgress& p) { stop = p.images >= 20; };
  ASSERT_TRUE(Run("part.fkdb")->interrupted);
  stop = false;
  options.progress = {};
  options.file.resume = true;
  options.append_to.clear();
  options.augmentation.crops = 11;
  EXPECT_EQ(Run("part.fkdb").error().message.substr(Path("part.fkdb.partial").string().size()),
            ": cannot resume with another recipe: extends: \"" + Reader::Open(Path("old.fkdb"))->manifest().digest +
                "\" in the file, null asked for");
  options.append_to = Path("old.fkdb");
  options.augmentation.crops = 5;
  EXPECT_EQ(Digest("part.fkdb"), digest);
}

TEST_F(StoredCropsTest, WhatCannotBeAppendedToIsRefusedByName) {
  options.max_bad = kAnyBad;
  data.broken = {17};
  ASSERT_TRUE(Run("old.fkdb"));
  options.append_to = Path("old.fkdb");
  data.broken.clear();
  ASSERT_TRUE(Run("more.fkdb"));  // an image that was skipped stays skipped, readable or not
  EXPECT_EQ(Reader::Open(Path("more.fkdb"))->manifest().skipped, std::vector<uint64_t>{17});

  const std::string old = Path("old.fkdb").string();
  const auto refused = [&](ErrorCode code) {
    const auto result = Run("no.fkdb");
    EXPECT_FALSE(result);
    EXPECT_EQ(result.error().code, code);
    return result.error().message;
  };
  options.augmentation.seed = 4;
  EXPECT_EQ(refused(ErrorCode::kInvalidArgument),
            old + ": cannot append to it: augmentation.seed: 0 in the file, 4 asked for");
  options.augmentation.seed = 0;
  options.batch_size = 8;
  EXPECT_EQ(refused(ErrorCode::kInvalidArgument), old + ": cannot append to it: teacher_batch_size: 16 in the file, 8 asked for");
  options.batch_size = 16;
  options.augmentation.crops = 65530;
  EXPECT_EQ(refused(ErrorCode::kInvalidArgument), "65536 crops an image in all: expected 1 to 65535");
  options.augmentation.crops = 6;
  test::WriteBytes(Path("fake.pt"), "other weights");
  EXPECT_TRUE(refused(ErrorCode::kInvalidArgument).starts_with(old + ": cannot append to it: teachers[0].sha256: \""));
  test::WriteBytes(Path("fake.pt"), "weights");
  EXPECT_FALSE(fs::exists(Path("no.fkdb.partial")));

  data.changed = {20};
  EXPECT_EQ(refused(ErrorCode::kMismatch),
            "image 'a/1020.png': it changed since it was labelled; the first crops of it are of another file");
  FakeData fewer(60);
  const auto result = LabelImages(fewer, teacher, Path("no.fkdb"), options);
  EXPECT_EQ(result.error().code, ErrorCode::kMismatch);
  EXPECT_EQ(result.error().message, old + ": cannot append to it: 1 of 61 labelled images are missing, first 'a/1060.png'");
}

}  // namespace
}  // namespace fkdb
