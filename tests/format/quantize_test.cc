// SPDX-License-Identifier: Apache-2.0
#include "format/quantize.h"

#include <gtest/gtest.h>

#include <numeric>

#include "format/half.h"
#include "format/recover.h"
#include "tests/format/test_labels.h"

namespace fkdb {
namespace {

using test::Describe;
using test::MakeSpec;
using test::RandomLogits;

TEST(Softmax, IsADistributionAndKnowsTemperature) {
  const std::vector<float> logits = {1, 2, 4};
  std::vector<float> p(3);
  ASSERT_TRUE(Softmax(logits, 2, p));
  const double sum = std::exp(0.5) + std::exp(1) + std::exp(2);
  for (int c = 0; c < 3; ++c) EXPECT_NEAR(p[static_cast<size_t>(c)], std::exp(logits[static_cast<size_t>(c)] / 2.0) / sum, 1e-7);
  std::vector<float> huge = {1e30f, -1e30f, 0};
  ASSERT_TRUE(Softmax(huge, 1, huge));
  EXPECT_EQ(huge, (std::vector<float>{1, 0, 0}));
  std::vector<float> bad = {0, NAN, 0};
  EXPECT_FALSE(Softmax(bad, 1, p));
  bad[1] = INFINITY;
  EXPECT_FALSE(Softmax(bad, 1, p));
}

TEST(QuantizeCrop, KeepsTheLargestInOrderAndBreaksTiesByClass) {
  const std::vector<float> p = {0.1f, 0.3f, 0.1f, 0.3f, 0.2f};
  std::vector<uint32_t> indices(4);
  std::vector<float> values(4);
  QuantizeCrop(MakeSpec(LabelKind::kMarginalSmoothing, 5, 4), p, indices, values);
  EXPECT_EQ(indices, (std::vector<uint32_t>{1, 3, 4, 0}));
  EXPECT_EQ(values, (std::vector<float>{0.3f, 0.3f, 0.2f, 0.1f}));
}

// The two ways to find the K largest agree with a full sort.
TEST(QuantizeCrop, EqualsAFullSort) {
  std::mt19937_64 random(5);
  for (const uint32_t k : {1u, 5u, 32u, 33u, 64u}) {
    std::vector<float> p = RandomLogits(64, 1, random);
    for (float& v : p) v = std::round(v * 4) / 4;  // many ties
    std::vector<uint32_t> expected(64);
    std::iota(expected.begin(), expected.end(), 0u);
    std::stable_sort(expected.begin(), expected.end(), [&](uint32_t a, uint32_t b) { return p[a] > p[b]; });
    expected.resize(k);
    std::vector<uint32_t> indices(k);
    std::vector<float> values(k);
    QuantizeCrop(MakeSpec(LabelKind::kMarginalSmoothing, 64, k), p, indices, values);
    EXPECT_EQ(indices, expected) << k;
  }
}

TEST(RoundToHalf, LeavesAPositiveTailToSureTeachers) {
  std::mt19937_64 random(6);
  int stepped = 0;
  for (const LabelKind kind : {LabelKind::kSmoothing, LabelKind::kMarginalSmoothing}) {
    const LabelSpec spec = MakeSpec(kind, 10, 5);
    const uint32_t k = spec.top_k;
    for (int trial = 0; trial < 20000; ++trial) {
      std::vector<float> p = RandomLogits(10, 8, random);
      Softmax(p, 1, p);
      std::vector<uint32_t> indices(k);
      std::vector<float> values(k);
      QuantizeCrop(spec, p, indices, values);
      std::vector<uint16_t> halves(k);
      RoundToHalf(spec, values, halves);
      double exact = 0, stored = 0, nearest = 0;
      for (size_t i = 0; i < k; ++i) {
        exact += values[i];
        stored += FloatFromHalf(halves[i]);
        nearest += FloatFromHalf(HalfFromFloat(values[i]));
        if (i > 0) {
          ASSERT_LE(halves[i], halves[i - 1]);
        }
        ASSERT_NEAR(FloatFromHalf(halves[i]), values[i], 0x1p-10);
      }
      if (exact < 1) {
        ASSERT_LT(stored, 1);
        stepped += nearest >= 1;
      }
    }
  }
  EXPECT_GT(stepped, 1000) << "no sum was at risk: the test tests nothing";
}

TEST(RoundToHalf, StepsDownTheLastOfEqualValues) {
  const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 3, 2);
  const std::vector<float> values = {0.49999f, 0.49999f};
  std::vector<uint16_t> halves(2);
  RoundToHalf(spec, values, halves);
  EXPECT_EQ(FloatFromHalf(halves[0]), 0.5f);
  EXPECT_EQ(FloatFromHalf(halves[1]), 0.5f - 0x1p-12f);
}

TEST(Recover, PaperEquationsByHand) {
  std::vector<float> dense(4);
  const std::vector<uint32_t> two = {2, 0};
  const std::vector<float> p = {0.5f, 0.25f};
  const std::vector<uint32_t> one = {2};
  const std::vector<float> p1 = {0.7f};
  using V = std::vector<float>;
  constexpr auto f32 = ValueEncoding::kF32;
  RecoverCrop(MakeSpec(LabelKind::kMarginalSmoothing, 4, 2, f32), two, p, 1, dense);  // Eq. 5
  EXPECT_EQ(dense, (V{0.25f, 0.125f, 0.5f, 0.125f}));
  RecoverCrop(MakeSpec(LabelKind::kMarginalRenorm, 4, 2, f32), two, p, 1, dense);  // Eq. 7
  EXPECT_EQ(dense, (V{0.25f * (1 / 0.75f), 0, 0.5f * (1 / 0.75f), 0}));
  RecoverCrop(MakeSpec(LabelKind::kSmoothing, 4, 1, f32), one, p1, 1, dense);  // Eq. 4
  for (size_t c = 0; c < 4; ++c) EXPECT_NEAR(dense[c], c == 2 ? 0.7 : 0.1, 1e-7);
  RecoverCrop(MakeSpec(LabelKind::kHard, 4, 1, f32), one, {}, 1, dense);  // Eq. 3
  EXPECT_EQ(dense, (V{0, 0, 1, 0}));
  const V all = {0.1f, 0.2f, 0.3f, 0.4f};
  RecoverCrop(MakeSpec(LabelKind::kFull, 4, 0, f32), {}, all, 1, dense);
  EXPECT_EQ(dense, all);
  RecoverCrop(MakeSpec(LabelKind::kLogits, 4, 0, f32), {}, V{0, 0, 0, 0}, 3, dense);
  EXPECT_EQ(dense, (V{0.25f, 0.25f, 0.25f, 0.25f}));
}

TEST(Recover, SumsToOneForEveryKindEncodingAndTeacher) {
  std::mt19937_64 random(7);
  for (const LabelKind kind : test::kAllKinds) {
    for (const ValueEncoding encoding : test::kAllValues) {
      for (const uint32_t classes : {2u, 10u, 1000u}) {
        for (const uint32_t k : {1u, 2u, 5u, 10u}) {
          if (k > classes) continue;
          const LabelSpec spec = MakeSpec(kind, classes, k, encoding);
          for (int trial = 0; trial < 50; ++trial) {
            const Record record = test::RandomRecord(spec, 1, random);
            const auto bytes = EncodeRecord(spec, record);
            ASSERT_TRUE(bytes) << bytes.error().message << Describe(spec);
            const auto view = RecordView::Open(*bytes, spec);
            ASSERT_TRUE(view);
            std::vector<uint32_t> indices(spec.num_indices());
            std::vector<float> values(spec.num_values()), dense(classes);
            if (!indices.empty()) view->CopyIndices(0, indices.data());
            if (!values.empty()) view->CopyValues(0, values.data());
            RecoverCrop(spec, indices, values, 1, dense);
            double sum = 0;
            for (const float y : dense) {
              ASSERT_GE(y, 0) << Describe(spec);
              sum += y;
            }
            ASSERT_NEAR(sum, 1, 1e-5) << Describe(spec);
          }
        }
      }
    }
  }
}

// Imported labels may sum to more than 1.
TEST(Recover, ASumAboveOneIsDividedAway) {
  const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 4, 2);
  std::vector<float> dense(4);
  RecoverCrop(spec, std::vector<uint32_t>{3, 1}, std::vector<float>{0.75f, 0.2502f}, 1, dense);
  EXPECT_EQ(dense[0], 0);
  EXPECT_NEAR(dense[1] + dense[3], 1, 1e-6);
}

}  // namespace
}  // namespace fkdb
