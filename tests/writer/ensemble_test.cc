// SPDX-License-Identifier: Apache-2.0
// Several teachers together: against the same averages in float64, done by hand.
#include "writer/ensemble.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "tests/format/test_labels.h"
#include "tests/writer/fake_job.h"
#include "writer/crop_output.h"

namespace fkdb {
namespace {

constexpr uint32_t kClasses = 7;

// Says something of a crop's input.
class Says : public Teacher {
 public:
  using Output = std::function<void(std::span<const float> input, std::span<float> output)>;
  Says(std::string name, uint32_t side, OutputKind kind, Output output)
      : name_(std::move(name)), input_{side, side + 1, Interpolation::kBilinear, {0.5}, {0.25}}, kind_(kind), output_(std::move(output)) {}

  const std::string& name() const override { return name_; }
  const std::filesystem::path& file() const override { return file_; }
  const InputSpec& input() const override { return input_; }
  uint32_t num_outputs() const override { return outputs; }
  OutputKind output_kind() const override { return kind_; }
  Result<void> Forward(const float* input, int64_t n, float* output) const override {
    EXPECT_EQ(n % kBatchMultiple, 0);
    const size_t samples = size_t{input_.height} * input_.width;
    for (int64_t i = 0; i < n; ++i) output_({input + i * samples, samples}, {output + i * outputs, outputs});
    ++calls;
    return {};
  }
  uint32_t outputs = kClasses;
  mutable int calls = 0;

 private:
  std::string name_;
  std::filesystem::path file_;
  InputSpec input_;
  OutputKind kind_;
  Output output_;
};

// Logits that depend on the whole input; with `spread` times as much between them.
Says::Output Logits(double spread) {
  return [spread](std::span<const float> input, std::span<float> output) {
    for (size_t c = 0; c < output.size(); ++c) {
      double z = 0;
      for (size_t i = 0; i < input.size(); ++i) z += input[i] * static_cast<double>((i * (c + 2)) % 5);
      output[c] = static_cast<float>(z * spread / static_cast<double>(input.size()));
    }
  };
}

std::vector<double> SoftmaxOf(std::span<const float> z, double temperature) {
  std::vector<double> p;
  double sum = 0;
  for (const float v : z) p.push_back(std::exp(v / temperature)), sum += p.back();
  for (double& v : p) v /= sum;
  return p;
}

const test::FakeData kNoImages(0);
const PartnerImages nobody(kNoImages);

struct Crop {
  Image image;
  PixelBox box;
  bool flip;
};

std::vector<Crop> MakeCrops(size_t count) {
  std::mt19937 random(1);
  std::vector<Crop> crops;
  for (size_t i = 0; i < count; ++i) {
    Image image = {30, 40, 1, std::vector<uint8_t>(1200)};
    for (uint8_t& sample : image.pixels) sample = static_cast<uint8_t>(random());
    crops.push_back({std::move(image), {static_cast<uint32_t>(i % 3), 2, 20, 30}, i % 2 == 1});
  }
  return crops;
}

// What a teacher says of a crop, without a batch.
std::vector<float> Alone(const Says& teacher, const Says::Output& output, const Crop& crop) {
  auto inputs = *CropInputs::Make(teacher.input());
  std::vector<float> input(inputs.samples()), said(kClasses);
  const uint8_t flip = crop.flip;
  inputs.Run(crop.image, {&crop.box, 1}, {&flip, 1}, input.data());
  output(input, said);
  return said;
}

TEST(Ensemble, AveragesWhatItsTeachersSay) {
  const Says::Output said[] = {Logits(40), Logits(-25)};
  // Inputs of their own: each crop is made twice.
  const Says a("a.pt", 8, OutputKind::kLogits, said[0]), b("b.pt", 12, OutputKind::kLogits, said[1]);
  const auto crops = MakeCrops(21);
  for (const Average average : {Average::kProbabilities, Average::kLogits}) {
    const float temperature = 2;
    const Ensemble ensemble({{&a, 1}, {&b, 3}}, average);
    auto batch = *EnsembleBatch::Make(ensemble, temperature, crops.size());
    for (int round = 0; round < 2; ++round) {  // the second finds the first one's remains
      batch.Clear();
      for (const Crop& crop : crops) ASSERT_TRUE(batch.Add(crop.image, crop.box, crop.flip, {}, nobody));
      EXPECT_TRUE(batch.full());
      ASSERT_TRUE(batch.Run());
      EXPECT_EQ(batch.outputs().kind(), average == Average::kLogits ? OutputKind::kLogits : OutputKind::kProbabilities);
      for (size_t i = 0; i < crops.size(); ++i) {
        const auto z_a = Alone(a, said[0], crops[i]), z_b = Alone(b, said[1], crops[i]);
        const auto p_a = SoftmaxOf(z_a, temperature), p_b = SoftmaxOf(z_b, temperature);
        for (size_t c = 0; c < kClasses; ++c) {
          const double expected = average == Average::kLogits ? (double{z_a[c]} + 3 * double{z_b[c]}) / 4 : (p_a[c] + 3 * p_b[c]) / 4;
          ASSERT_NEAR(batch.outputs().output(i)[c], expected, 1e-6 * std::max(1.0, std::abs(expected))) << i << " " << c;
        }
      }
    }
    EXPECT_EQ(batch.outputs().distributions(0), 0u);
  }
  EXPECT_EQ(Ensemble({{&a, 1}, {&b, 3}}).name(), "a.pt, b.pt");
}

TEST(Ensemble, OneTeachersOutputsAreItsOwn) {
  const Says::Output said = Logits(40);
  const Says a("a.pt", 8, OutputKind::kLogits, said);
  const auto crops = MakeCrops(5);
  auto batch = *EnsembleBatch::Make(a, 3, 10);
  for (const Crop& crop : crops) ASSERT_TRUE(batch.Add(crop.image, crop.box, crop.flip, {}, nobody));
  EXPECT_FALSE(batch.full());
  ASSERT_TRUE(batch.Run());
  EXPECT_EQ(batch.outputs().kind(), OutputKind::kLogits);
  for (size_t i = 0; i < crops.size(); ++i) {
    const auto alone = Alone(a, said, crops[i]);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), batch.outputs().output(i).begin()));
  }
}

// Distributions and logits can be averaged as distributions.
TEST(Ensemble, TeachersThatGiveProbabilitiesNeedNoSoftmax) {
  const Says::Output logits = Logits(40);
  const Says::Output probabilities = [&](std::span<const float> input, std::span<float> output) {
    logits(input, output);
    const auto p = SoftmaxOf(output, 1);
    std::copy(p.begin(), p.end(), output.begin());
  };
  const Says a("a.pt", 8, OutputKind::kLogits, logits), b("b.pt", 8, OutputKind::kProbabilities, probabilities);
  auto batch = *EnsembleBatch::Make(Ensemble({{&a, 1}, {&b, 1}}), 1, 16);
  const auto crops = MakeCrops(16);
  for (const Crop& crop : crops) ASSERT_TRUE(batch.Add(crop.image, crop.box, crop.flip, {}, nobody));
  ASSERT_TRUE(batch.Run());
  for (size_t i = 0; i < crops.size(); ++i) {
    const auto p = SoftmaxOf(Alone(a, logits, crops[i]), 1);
    for (size_t c = 0; c < kClasses; ++c) EXPECT_NEAR(batch.outputs().output(i)[c], p[c], 1e-6);
  }
  EXPECT_EQ(batch.outputs().distributions(0), 0u);
  EXPECT_EQ(batch.outputs().distributions(1), 16u);
}

TEST(Ensemble, TheTeacherWhoseOutputIsBadIsNamed) {
  int crop = 0;
  const Says::Output good = Logits(40);
  const Says::Output bad_once = [&](std::span<const float> input, std::span<float> output) {
    good(input, output);
    if (crop++ == 4) output[2] = NAN;
  };
  const Says a("a.pt", 8, OutputKind::kLogits, good), b("b.pt", 8, OutputKind::kLogits, bad_once);
  for (const Average average : {Average::kProbabilities, Average::kLogits}) {
    crop = 0;
    auto batch = *EnsembleBatch::Make(Ensemble({{&a, 1}, {&b, 1}, {&a, 1}}, average), 1, 16);
    for (const Crop& one : MakeCrops(16)) ASSERT_TRUE(batch.Add(one.image, one.box, one.flip, {}, nobody));
    ASSERT_TRUE(batch.Run());
    for (size_t i = 0; i < 16; ++i) EXPECT_EQ(std::isfinite(batch.outputs().output(i)[0]), i != 4) << i;
    EXPECT_EQ(batch.outputs().Culprit(4).name(), "b.pt");
  }
  // One that says it gives probabilities and does not.
  const Says liar("liar.pt", 8, OutputKind::kProbabilities, good);
  auto batch = *EnsembleBatch::Make(Ensemble({{&a, 1}, {&liar, 1}}), 1, 1);
  ASSERT_TRUE(batch.Add(MakeCrops(1)[0].image, {0, 0, 9, 9}, false, {}, nobody));
  ASSERT_TRUE(batch.Run());
  EXPECT_TRUE(std::isnan(batch.outputs().output(0)[0]));
  EXPECT_EQ(batch.outputs().Culprit(0).name(), "liar.pt");
}

TEST(Ensemble, WhatCannotBeAveragedIsRefused) {
  const Says a("a.pt", 8, OutputKind::kLogits, Logits(1)), p("p.pt", 8, OutputKind::kProbabilities, Logits(1));
  Says wide("wide.pt", 8, OutputKind::kLogits, Logits(1));
  wide.outputs = 9;
  LabelSpec labels = test::MakeSpec(LabelKind::kMarginalSmoothing, kClasses, 2);
  const auto error = [&](const Ensemble& ensemble) {
    const auto checked = CheckEnsemble(ensemble, labels);
    EXPECT_TRUE(checked || checked.error().code == ErrorCode::kInvalidArgument);
    return checked ? std::string("none") : checked.error().message;
  };
  EXPECT_EQ(error(a), "none");
  EXPECT_EQ(error(p), "none");
  EXPECT_EQ(error(Ensemble({{&a, 1}, {&p, 1}})), "none");
  EXPECT_EQ(error(Ensemble(std::vector<Ensemble::Member>())), "no teacher");
  EXPECT_EQ(error(Ensemble({{&a, 1}, {&wide, 1}})), "teacher 'wide.pt' has 9 outputs, 'a.pt' 7: only teachers of the same classes can be averaged");
  EXPECT_EQ(error(Ensemble({{&a, 1}, {&a, 0}})), "teacher 'a.pt': weight 0: expected a positive number");
  EXPECT_EQ(error(Ensemble({{&a, 1}, {&a, INFINITY}})), "teacher 'a.pt': weight inf: expected a positive number");
  EXPECT_EQ(error(Ensemble({{&a, 1}, {&p, 1}}, Average::kLogits)), "teacher 'p.pt' gives probabilities: there are no logits to average");
  labels.temperature = 2;
  EXPECT_EQ(error(Ensemble({{&a, 1}, {&p, 1}})), "teacher 'p.pt' gives probabilities: a temperature of 2 is for logits");
  labels = test::MakeSpec(LabelKind::kLogits, kClasses, 0, ValueEncoding::kF32);
  EXPECT_EQ(error(a), "none");
  EXPECT_EQ(error(p), "teacher 'p.pt' gives probabilities: there are no logits to store");
  EXPECT_EQ(error(Ensemble({{&a, 1}, {&a, 1}})), "labels of kind 'logits' are averages of logits: --average logits");
  EXPECT_EQ(error(Ensemble({{&a, 1}, {&a, 1}}, Average::kLogits)), "none");
  EXPECT_EQ(ParseAverage("median").error().message, "average 'median': expected probabilities or logits");
}

}  // namespace
}  // namespace fkdb
