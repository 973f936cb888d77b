// SPDX-License-Identifier: Apache-2.0
// Vanilla knowledge distillation: teachers that are asked in every step see the student's crops, in their own way.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "format/quantize.h"
#include "tests/trainer/made_up.h"
#include "trainer/batch_loader.h"
#include "trainer/supervision.h"

namespace fkdb {
namespace {

using test::MadeUpPhotos;

// Two logits of what it sees: its mean, and its first sample.
class Looker : public Teacher {
 public:
  explicit Looker(uint32_t side, OutputKind kind = OutputKind::kLogits)
      : input_{side, side, Interpolation::kBicubic, {0.4, 0.5, 0.6}, {0.2, 0.2, 0.3}}, kind_(kind) {}
  const std::string& name() const override { return name_; }
  const std::filesystem::path& file() const override { return file_; }
  const InputSpec& input() const override { return input_; }
  uint32_t num_outputs() const override { return 2; }
  OutputKind output_kind() const override { return kind_; }
  Result<void> Forward(const float* input, int64_t n, float* output) const override {
    EXPECT_EQ(n % kBatchMultiple, 0);
    if (broken) return Fail(ErrorCode::kModel, "it broke");
    for (int64_t i = 0; i < n; ++i) Say(input + i * samples(), output + 2 * i);
    return {};
  }
  void Say(const float* seen, float* output) const {
    double sum = 0;
    for (int64_t k = 0; k < samples(); ++k) sum += seen[k];
    output[0] = nan ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(sum / static_cast<double>(samples()));
    output[1] = seen[0];
  }
  bool broken = false, nan = false;

 private:
  int64_t samples() const { return int64_t{3} * input_.height * input_.width; }
  std::string name_ = "looker.pt";
  std::filesystem::path file_ = "looker.pt";
  InputSpec input_;
  OutputKind kind_;
};

class OnlineTeacherTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kCrops = 3;
  OnlineTeacherTest() : crops_(std::move(*HardSupervision(data_, {}, 1))) {}

  Result<std::unique_ptr<BatchLoader>> Load(const Supervision& supervision, int workers) const {
    return BatchLoader::Make(data_, supervision, {{16, 12, Interpolation::kBilinear, {0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}}, 0, {{0, kCrops}}, 9, 1, 0, workers});
  }
  Error FirstError(const OnlineTeacher& online) const {
    const auto supervision = TeacherSupervision(*crops_, online, data_);
    if (!supervision) return supervision.error();
    const auto loader = *Load(**supervision, 2);
    for (;;) {
      const auto batch = loader->Next();
      if (!batch) return batch.error();
      if (*batch == nullptr) return {ErrorCode::kModel, "there was no error"};
    }
  }

  const MadeUpPhotos data_{11};
  std::unique_ptr<Supervision> crops_;
};

TEST_F(OnlineTeacherTest, SeesTheStudentsCropsInItsOwnWay) {
  const Looker small(5), large(20);
  const Ensemble both({{&small, 1}, {&large, 3}});
  for (const double lambda : {1.0, 0.25}) {
    for (const int workers : {1, 4}) {
      const auto supervision = TeacherSupervision(*crops_, {&both, 2, lambda}, data_);
      ASSERT_TRUE(supervision) << supervision.error().message;
      const auto loader = *Load(**supervision, workers), plain = *Load(*crops_, 1);
      uint64_t crops = 0;
      while (TrainBatch* batch = *loader->Next()) {
        // The student sees what it would see without a teacher.
        TrainBatch* const alone = *plain->Next();
        ASSERT_TRUE(alone);
        EXPECT_EQ(test::InputsOf(*batch), test::InputsOf(*alone));
        ASSERT_EQ(batch->arrays.values.size(), batch->labels.size() * 2);
        for (const BatchImage& at : batch->labels.images()) {
          const Image image = *data_.Load(at.ordinal, nullptr);
          for (uint32_t n = at.first_crop; n < at.first_crop + at.num_crops; ++n, ++crops) {
            std::vector<double> expected(2);
            for (const auto& [teacher, weight] : {std::pair(&small, 0.25), {&large, 0.75}}) {
              CropInputs make = *CropInputs::Make(teacher->input());
              std::vector<float> seen(make.samples()), logits(2), p(2);
              make.Run(image, batch->labels.boxes().subspan(n, 1), batch->labels.flips().subspan(n, 1), seen.data());
              teacher->Say(seen.data(), logits.data());
              ASSERT_TRUE(Softmax(logits, 2, p));
              for (int c = 0; c < 2; ++c) expected[c] += lambda * weight * p[c];
            }
            expected[at.ordinal % 2] += 1 - lambda;
            for (int c = 0; c < 2; ++c) EXPECT_NEAR(batch->arrays.values[2 * n + c], expected[c], 2e-6) << n;
          }
        }
      }
      EXPECT_EQ(crops, 11 * kCrops);
    }
  }
}

// FunMatch: the teacher's label is of the mixed crop, and mixed again by nobody; the class's share is mixed.
TEST_F(OnlineTeacherTest, SeesMixedCropsAsTheStudentDoes) {
  const Looker small(5), student(16);
  for (const double lambda : {1.0, 0.25}) {
    for (const bool cut : {false, true}) {
      const Looker& looker = cut ? student : small;  // CutMix's box is of one size
      const Ensemble one(looker);
      const auto mixed = TeacherSupervision(*crops_, {&one, 1, lambda, true}, data_), plain = TeacherSupervision(*crops_, {&one, 1, 1}, data_);
      ASSERT_TRUE(mixed && plain);
      LoaderConfig config = {{16, 16, Interpolation::kBilinear, {0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}}, 0, {{0, kCrops}}, 9, 1, 0, 2};
      const auto alone = *BatchLoader::Make(data_, **plain, config);
      config.mixing = {cut ? 0.0 : 1.0, cut ? 1.0 : 0.0};
      config.steps_before = 7;
      const auto loader = *BatchLoader::Make(data_, **mixed, config);
      uint64_t steps = 7, mixes = 0;
      while (TrainBatch* batch = *loader->Next()) {
        TrainBatch* const before = *alone->Next();
        EXPECT_EQ(test::InputsOf(*batch), test::InputsOf(*before));  // the student's are mixed where it trains
        EXPECT_EQ(batch->all_steps, steps++);
        if (!batch->mix) continue;
        ++mixes;
        const BatchMix& mix = *batch->mix;
        ASSERT_EQ(mix.partners.size(), batch->labels.size());
        std::vector<float> seen = before->teacher_inputs[0];
        const uint32_t side = looker.input().height;
        MixInputs(mix, 3, side, side, seen);
        EXPECT_EQ(batch->teacher_inputs[0], seen);
        const auto class_of = [&](size_t n) { return batch->labels.images()[n / kCrops].ordinal % 2; };
        for (size_t n = 0; n < batch->labels.size(); ++n) {
          std::vector<float> logits(2), p(2);
          looker.Say(seen.data() + n * 3 * side * side, logits.data());
          ASSERT_TRUE(Softmax(logits, 1, p));
          std::vector<double> expected = {lambda * p[0], lambda * p[1]};
          expected[class_of(n)] += (1 - lambda) * mix.share;
          expected[class_of(mix.partners[n])] += (1 - lambda) * (1 - mix.share);
          for (int c = 0; c < 2; ++c) EXPECT_NEAR(batch->arrays.values[2 * n + c], expected[c], 2e-6) << n;
        }
      }
      EXPECT_GE(mixes, 3u);
    }
  }
  const Ensemble one(small);
  const auto mixed = TeacherSupervision(*crops_, {&one, 1, 1, true}, data_);
  LoaderConfig config = {{16, 12, Interpolation::kBilinear, {0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}}, 0, {{0, kCrops}}, 9, 1, 0, 2};
  config.mixing.cutmix_alpha = 1;
  EXPECT_EQ(BatchLoader::Make(data_, **mixed, config).error().message,
            "CutMix's boxes are of the student's 16 x 12 pixels: a teacher that sees 5 x 5 cannot be asked of mixed crops; mixup alone, or an --input-size of the teacher's, is possible");
  config.mixing = {1, 1, 1, 0};
  EXPECT_TRUE(BatchLoader::Make(data_, **mixed, config));
}

TEST_F(OnlineTeacherTest, WhatGoesWrongIsNamed) {
  Looker teacher(5);
  const Ensemble one(teacher);
  EXPECT_EQ(FirstError({&one}).message, "there was no error");
  teacher.nan = true;
  EXPECT_EQ(FirstError({&one}).message, "teacher 'looker.pt' gave NaN, infinity or no probabilities: check it and its card");
  teacher.broken = true;
  EXPECT_EQ(FirstError({&one}).message, "it broke");
  EXPECT_EQ(FirstError({&one, 1, 1.5}).message, "lambda 1.5: expected 0 to 1");
  EXPECT_EQ(FirstError({&one, 0}).message, "temperatures must be positive");
  const Looker probabilities(5, OutputKind::kProbabilities);
  const Ensemble said(probabilities);
  EXPECT_EQ(FirstError({&said}).message, "teacher 'looker.pt' gave NaN, infinity or no probabilities: check it and its card");
  EXPECT_EQ(FirstError({&said, 2}).message, "teacher 'looker.pt' gives probabilities: a temperature of 2 is for logits");
}

}  // namespace
}  // namespace fkdb
