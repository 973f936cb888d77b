// SPDX-License-Identifier: Apache-2.0
#include "writer/label_writer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "format/quantize.h"
#include "reader/reader.h"
#include "reader/verify.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kClasses = 6, kCrops = 3;

class LabelWriterTest : public test::TempFolder {
 protected:
  Manifest Recipe(LabelKind kind = LabelKind::kMarginalSmoothing) const {
    Manifest recipe;
    recipe.spec.kind = kind;
    recipe.spec.num_classes = kClasses;
    recipe.spec.top_k = 2;
    recipe.spec.values = ValueEncoding::kF32;
    recipe.data_set.class_names = {"a", "b", "c", "d", "e", "f"};
    recipe.augmentation.crops = kCrops;
    recipe.augmentation.mean = {0, 0, 0};
    recipe.augmentation.std = {1, 1, 1};
    return recipe;
  }
  Result<LabelWriter> Open(const Manifest& recipe, bool resume = false) const {
    LabelFileWriterOptions options;
    options.resume = resume;
    return LabelWriter::Open(Path("x.fkdb"), recipe, keys_, options);
  }
  // An image with the crops that the writer samples.
  static Record ImageOf(const LabelWriter& writer, const std::string& key) {
    Record record;
    record.width = 40 + static_cast<uint32_t>(key.back());
    record.height = 50;
    record.class_index = 1;
    const auto crops = writer.Sample(key, record.width, record.height);
    for (const SampledCrop& crop : *crops) {
      record.pixel_boxes.push_back(crop.box);
      record.flips.push_back(crop.flip);
    }
    return record;
  }
  static std::vector<float> Logits(const std::string& key) {
    std::vector<float> logits(kCrops * kClasses);
    for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i * static_cast<size_t>(key.back())));
    return logits;
  }
  static Result<void> Append(LabelWriter* writer, const std::string& key) {
    return writer->Append(key, ImageOf(*writer, key), Logits(key), kClasses, OutputKind::kLogits);
  }

  std::vector<std::string> keys_ = {"b/3", "a/2", "a/1"};  // any order
};

TEST_F(LabelWriterTest, KeepsWhatTheTeacherSaid) {
  auto writer = Open(Recipe());
  ASSERT_TRUE(writer) << writer.error().message;
  EXPECT_EQ(writer->keys(), (std::vector<std::string>{"a/1", "a/2", "b/3"}));
  for (const std::string& key : writer->keys()) ASSERT_TRUE(Append(&*writer, key));
  const auto manifest = writer->Finish();
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->num_crops, 9u);
  EXPECT_TRUE(Verify(Path("x.fkdb")).ok);

  const auto reader = Reader::Open(Path("x.fkdb"));
  const auto view = reader->Get(1);
  std::vector<float> p(kClasses), stored(2);
  std::vector<uint32_t> indices(2), top(2);
  std::vector<float> expected(2);
  for (uint32_t crop = 0; crop < kCrops; ++crop) {
    const std::vector<float> logits = Logits("a/2");
    ASSERT_TRUE(Softmax(std::span(logits).subspan(crop * kClasses, kClasses), 1, p));
    QuantizeCrop(reader->spec(), p, top, expected);
    view->CopyIndices(crop, indices.data());
    view->CopyValues(crop, stored.data());
    EXPECT_EQ(indices, top);
    EXPECT_EQ(stored, expected);
    const SampledCrop sampled = CropSampler::Make({})->Sample(0, Hash64("a/2"), crop, 40 + '2', 50);
    EXPECT_EQ(view->pixel_box(crop), sampled.box);
    EXPECT_EQ(view->flip(crop), sampled.flip);
  }
}

TEST_F(LabelWriterTest, ProbabilitiesAreTakenAsTheyAre) {
  auto writer = Open(Recipe());
  ASSERT_TRUE(writer) << writer.error().message;
  std::vector<float> p(kCrops * kClasses, 0);
  for (uint32_t crop = 0; crop < kCrops; ++crop) {
    p[crop * kClasses + 4] = 0.75f;
    p[crop * kClasses + 2] = 0.25f;
  }
  ASSERT_TRUE(writer->Append("a/1", ImageOf(*writer, "a/1"), p, kClasses, OutputKind::kProbabilities));
  p[3] = -0.1f;
  p[2] = 0.35f;
  auto bad = writer->Append("a/2", ImageOf(*writer, "a/2"), p, kClasses, OutputKind::kProbabilities);
  EXPECT_EQ(bad.error().message, "image 'a/2': the outputs for crop 0 are not probabilities: none negative, sum 1");
  auto logits = LabelWriter::Open(Path("y.fkdb"), Recipe(LabelKind::kLogits), keys_);
  ASSERT_TRUE(logits) << logits.error().message;
  bad = logits->Append("a/1", ImageOf(*logits, "a/1"), p, kClasses, OutputKind::kProbabilities);
  EXPECT_EQ(bad.error().message, "image 'a/1': the outputs for crop 0 are not logits, which is what this label set stores");
}

TEST_F(LabelWriterTest, ResumesToTheSameDigest) {
  std::string whole;
  {
    auto writer = Open(Recipe());
    for (const std::string& key : writer->keys()) ASSERT_TRUE(Append(&*writer, key));
    whole = writer->Finish()->digest;
  }
  fs::remove(Path("x.fkdb"));
  {
    auto writer = Open(Recipe());
    ASSERT_TRUE(Append(&*writer, "a/1"));
    EXPECT_EQ(writer->Finish().error().message, "1 of 3 images are written; the next is 'a/2'. Nothing is lost: open it again to resume, and go on");
  }
  auto writer = Open(Recipe(), /*resume=*/true);
  ASSERT_EQ(writer->num_images(), 1u);
  ASSERT_TRUE(Append(&*writer, "a/2"));
  ASSERT_TRUE(Append(&*writer, "b/3"));
  EXPECT_EQ(writer->Finish()->digest, whole);
}

TEST_F(LabelWriterTest, RefusesWhatDoesNotFit) {
  Manifest recipe = Recipe();
  recipe.data_set.class_names.pop_back();
  EXPECT_EQ(Open(recipe).error().message, "5 class names for labels of 6 classes");
  recipe = Recipe();
  recipe.augmentation.crops = 70000;
  EXPECT_EQ(Open(recipe).error().message, "70000 crops an image: expected 1 to 65535");
  auto writer = Open(Recipe());
  Record record = ImageOf(*writer, "a/1");
  record.class_index = 6;
  EXPECT_EQ(writer->Append("a/1", record, Logits("a/1"), kClasses, OutputKind::kLogits).error().message,
            "image 'a/1': class 6 of the 6 that have names");
  EXPECT_EQ(Append(&*writer, "b/3").error().message,
            "image 'b/3' is not the next one: images are written in bytewise key order, expected 'a/1'");
  EXPECT_EQ(writer->Sample("c", 5, 5).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(writer->Sample("a/1", 0, 5).error().message, "image 'a/1': 0 x 5 pixels");
  ASSERT_TRUE(writer->Skip("a/1", std::string(5000, 'x')));
  EXPECT_EQ(writer->num_images(), 1u);
}

}  // namespace
}  // namespace fkdb
