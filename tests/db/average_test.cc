// SPDX-License-Identifier: Apache-2.0
#include "db/average.h"

#include <gtest/gtest.h>

#include <atomic>

#include "db/label_set.h"
#include "format/recover.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

class AverageTest : public test::TempFolder {
 protected:
  // Other labels for the crops of `like`.
  static test::RandomLabels LabelsFor(const test::RandomLabels& like, uint64_t seed) {
    test::RandomLabels labels(like.records.size(), like.recipe.spec, 4, seed);
    for (size_t i = 0; i < labels.records.size(); ++i) {
      Record record = like.records[i];
      record.indices = labels.records[i].indices;
      record.values = labels.records[i].values;
      labels.records[i] = record;
    }
    labels.recipe = like.recipe;
    labels.recipe.teachers = {{"teacher" + std::to_string(seed) + ".pt", std::to_string(seed)}};
    return labels;
  }
  Result<Manifest> Average(const std::vector<std::string>& names, const std::string& out = "out.fkdb") {
    std::vector<std::filesystem::path> paths;
    for (const std::string& name : names) paths.push_back(Path(name));
    return AverageLabelSets(paths, Path(out), options_);
  }
  std::string Error(const std::vector<std::string>& names) {
    const auto made = Average(names, "never.fkdb");
    return made ? "none" : made.error().message;
  }
  std::string Apart(const std::string& a, const std::string& b) { return Path(a).string() + " and " + Path(b).string() + " cannot be averaged: "; }

  AverageOptions options_;
};

// Crop by crop what a plain loop over the recovered labels gives, kept as the spec says.
TEST_F(AverageTest, IsTheWeightedMeanOfWhatIsStored) {
  options_.weights = {1, 2, 0.5};
  for (const LabelKind kind : {LabelKind::kFull, LabelKind::kMarginalSmoothing, LabelKind::kMarginalRenorm, LabelKind::kHard, LabelKind::kLogits}) {
    const LabelSpec spec = *CheckLabelSpec(test::MakeSpec(kind, 10, 3, ValueEncoding::kF32));
    const test::RandomLabels a(30, spec), b = LabelsFor(a, 2), c = LabelsFor(a, 3);
    const std::string name(Name(kind));
    ASSERT_TRUE(a.Build(Path(name + "a")) && b.Build(Path(name + "b")) && c.Build(Path(name + "c")));
    const auto made = Average({name + "a", name + "b", name + "c"}, name);
    ASSERT_TRUE(made) << made.error().message;
    EXPECT_EQ(made->num_crops, 120u);
    const auto set = LabelSet::Open(Path(name));
    ASSERT_TRUE(set);
    for (uint64_t i = 0; i < 30; ++i) {
      const auto view = RecordView::Open(*set->RecordBytes(i), spec);
      ASSERT_TRUE(view && view->Validate());
      EXPECT_EQ(view->class_index(), a.records[i].class_index);
      for (uint32_t crop = 0; crop < 4; ++crop) {
        EXPECT_EQ(view->pixel_box(crop), a.records[i].pixel_boxes[crop]);
        EXPECT_EQ(view->flip(crop), a.records[i].flips[crop] != 0);
        std::vector<double> mean(10);
        for (const auto& [labels, weight] : {std::pair{&a, 1.0}, {&b, 2.0}, {&c, 0.5}}) {
          const Record& record = labels->records[i];
          const size_t ni = spec.num_indices(), nv = spec.num_values();
          std::vector<float> dense(record.values.begin() + static_cast<ptrdiff_t>(crop * nv), record.values.begin() + static_cast<ptrdiff_t>((crop + 1) * nv));
          if (kind != LabelKind::kLogits) {
            dense.resize(10);
            RecoverCrop(spec, std::span(record.indices).subspan(crop * ni, ni), std::span(record.values).subspan(crop * nv, nv), 1, dense);
          }
          for (size_t k = 0; k < 10; ++k) mean[k] += weight / 3.5 * dense[k];
        }
        std::vector<uint32_t> indices(spec.num_indices());
        std::vector<float> values(spec.num_values());
        view->CopyIndices(crop, indices.data());
        view->CopyValues(crop, values.data());
        if (indices.empty()) {
          for (size_t k = 0; k < 10; ++k) ASSERT_NEAR(values[k], mean[k], 1e-6);
        } else {  // the largest of the mean, in its order
          for (size_t k = 0; k < values.size(); ++k) ASSERT_NEAR(values[k], mean[indices[k]], 1e-6);
          auto sorted = mean;
          std::sort(sorted.begin(), sorted.end(), std::greater<>());
          for (size_t k = 0; k < indices.size(); ++k) ASSERT_NEAR(mean[indices[k]], sorted[k], 1e-6);
        }
      }
    }
  }
}

TEST_F(AverageTest, ItsManifestNamesAllTeachersInTheirProportions) {
  test::RandomLabels a(5), b = LabelsFor(a, 2), c = LabelsFor(a, 3);
  b.recipe.augmentation.input_height = 300;
  b.recipe.teacher_batch_size = 8;
  b.recipe.boxes_from = "sha256:1";
  b.recipe.data_set.name = "elsewhere";
  ASSERT_TRUE(a.Build(Path("a")) && b.Build(Path("b")) && c.Build(Path("c")));
  options_.weights = {1, 3};
  const auto ab = Average({"a", "b"}, "ab");
  ASSERT_TRUE(ab) << ab.error().message;
  const auto all = Average({"c", "ab"}, "all");
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_EQ(all->teacher_average, "probabilities");
  ASSERT_EQ(all->teachers.size(), 3u);
  EXPECT_EQ(all->teachers[0].name, "teacher3.pt");
  EXPECT_EQ(all->teachers[0].weight, 1);
  EXPECT_EQ(all->teachers[1].weight, 0.75);
  EXPECT_EQ(all->teachers[2].weight, 2.25);
  EXPECT_EQ(all->teachers[1].input, TeacherInputInfo());
  EXPECT_EQ(all->teachers[2].input, (TeacherInputInfo{300, 224, "bilinear", {0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}}));
  EXPECT_EQ(all->boxes_from, "");
  EXPECT_EQ(all->averaged, (std::vector<AveragedInfo>{{LabelSet::Open(Path("c"))->manifest().digest, 1}, {ab->digest, 3}}));
}

// What was averaged, and how, is part of the recipe: nothing else is continued.
TEST_F(AverageTest, OtherWeightsOrInputsAreNotResumed) {
  test::RandomLabels a(300), b = LabelsFor(a, 2), c = LabelsFor(a, 3);
  for (auto* labels : {&a, &b, &c}) labels->recipe.teachers.clear();  // from elsewhere
  a.records[0].content_hash = {};
  ASSERT_TRUE(a.Build(Path("a")) && b.Build(Path("b")) && c.Build(Path("c")));
  options_.weights = {1, 3};
  const auto whole = Average({"a", "b"}, "whole");
  const auto interrupt = [&] {
    options_.file = {};
    std::filesystem::remove(Path("out.fkdb"));
    std::atomic<bool> stop = false;
    options_.progress = [&](uint64_t done, uint64_t) { stop = done >= 256; };
    options_.stop = &stop;
    const auto stopped = Average({"a", "b"});
    ASSERT_EQ(stopped.error().code, ErrorCode::kIncomplete);
    options_.file.resume = true;
    options_.stop = nullptr;
    options_.progress = {};
  };
  interrupt();
  EXPECT_EQ(Average({"a", "b"})->digest, whole->digest);
  interrupt();
  EXPECT_NE(Average({"a", "c"}).error().message.find("averaged[1].digest"), std::string::npos);
  options_.weights = {3, 1};
  EXPECT_NE(Average({"a", "b"}).error().message.find("averaged[0].weight: 1.0 in the file, 3.0 asked for"), std::string::npos);
  // The file of an image is known if any input knows it.
  const auto set = LabelSet::Open(Path("whole"));
  EXPECT_EQ(RecordView::Open(*set->RecordBytes(0), a.recipe.spec)->content_hash(), b.records[0].content_hash);
}

TEST_F(AverageTest, OtherCropsAreRefusedByName) {
  const test::RandomLabels a(5);
  ASSERT_TRUE(a.Build(Path("a")));
  const std::string hint = "; fkdb-write --boxes-from labels the same crops";
  const auto with = [&](auto change) {
    test::RandomLabels b = LabelsFor(a, 2);
    change(&b);
    std::filesystem::remove(Path("b"));
    EXPECT_TRUE(b.Build(Path("b")));
    std::string error = Error({"a", "b"});
    std::filesystem::remove(Path("never.fkdb.partial"));
    const std::string front = Apart("a", "b");
    EXPECT_TRUE(error.starts_with(front)) << error;
    return error.substr(std::min(front.size(), error.size()));
  };
  EXPECT_EQ(with([](auto* b) { b->records[3].pixel_boxes[2].height = 1; }), "image '00003.jpg': crop 2 has another box" + hint);
  EXPECT_EQ(with([](auto* b) { ++b->records[3].width; }).substr(0, 25), "image '00003.jpg': it is ");
  EXPECT_EQ(with([](auto* b) { b->records[3].class_index = b->records[3].class_index == 0; }), "image '00003.jpg': its class is not the same" + hint);
  EXPECT_EQ(with([](auto* b) { b->records[3].flips[1] ^= 1; }), "image '00003.jpg': crop 1 is flipped in one of them" + hint);
  EXPECT_EQ(with([](auto* b) { b->records[3].content_hash[0] ^= 1; }), "image '00003.jpg': it is of another file" + hint);
  EXPECT_EQ(with([](auto* b) {
    Record skipped;
    skipped.key_hash = b->records[0].key_hash;
    skipped.skip_reason = "broken";
    b->records[0] = skipped;
  }), "image '00000.jpg': only one of them skipped it" + hint);
  EXPECT_EQ(with([](auto* b) { b->recipe.spec.temperature = 2; }), "labels.temperature: 1.0 in the first, 2.0 in the second");
  EXPECT_EQ(with([](auto* b) { b->recipe.augmentation.seed = 2; }), "augmentation.seed: 0 in the first, 2 in the second");
  EXPECT_NE(with([](auto* b) {
    b->keys.back() = "x.jpg";
    b->records.back().key_hash = Hash64("x.jpg");
    b->recipe.data_set.key_list_sha256 = Sha256OfKeys(b->keys);
  }).find("00004.jpg"), std::string::npos);

  EXPECT_EQ(Error({"a"}), "an average is of two label sets or more");
  options_.weights = {1};
  EXPECT_EQ(Error({"a", "a"}), "1 weights for 2 label sets");
  options_.weights = {1, -1};
  EXPECT_EQ(Error({"a", "a"}), "weight -1: expected a positive number");
}

}  // namespace
}  // namespace fkdb
