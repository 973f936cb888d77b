// SPDX-License-Identifier: Apache-2.0
// Packed values: the promises of FORMAT.md over the whole range of teachers, unsure and sure.
#include "format/packed.h"

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "format/recover.h"
#include "tests/format/test_labels.h"

namespace fkdb {
namespace {

using test::Describe;
using test::MakeSpec;

std::vector<float> ThroughBits(const LabelSpec& spec, const std::vector<float>& values) {
  BitWriter writer;
  writer.Put(5, 3);  // values begin at any bit
  PackValues(spec, values.data(), &writer);
  const std::vector<uint8_t> bytes = std::move(writer).Finish();
  EXPECT_EQ(bytes.size(), (3 + PackedValueBits(spec) + 7) / 8 + kBitPadding);
  std::vector<float> out(values.size());
  UnpackValues(spec, bytes.data(), 3, out.data());
  return out;
}

// KL(exact || stored) in nats of two labels with the same indices, their tails one event each.
double Divergence(const std::vector<float>& exact, const std::vector<float>& stored, bool tail) {
  double kl = 0, exact_sum = 0, stored_sum = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    exact_sum += exact[i];
    stored_sum += stored[i];
    if (exact[i] > 0) kl += exact[i] * std::log(exact[i] / static_cast<double>(stored[i]));
  }
  if (tail && exact_sum < 1) kl += (1 - exact_sum) * std::log((1 - exact_sum) / (1 - stored_sum));
  return kl;
}

// K descending probabilities with random ratios down to 2^-16 and a tail from 2^-20 to 2^20 times
// the largest.
std::vector<float> RandomTopK(uint32_t k, bool tail, std::mt19937_64& random) {
  std::uniform_real_distribution<double> unit;
  std::vector<double> weights = {1};
  const double steepest = unit(random);
  while (weights.size() < k) weights.push_back(weights.back() * std::exp2(-16 * steepest * unit(random)));
  double sum = tail ? std::exp2(40 * unit(random) - 20) : 0;
  for (const double w : weights) sum += w;
  std::vector<float> p(k);
  for (uint32_t i = 0; i < k; ++i) p[i] = static_cast<float>(weights[i] / sum);
  return p;
}

// FORMAT.md: the divergence of any label is below 0.0015 nats, its order stays, and its sum is below 1
// where classes outside the K exist.
TEST(PackedValues, AreWithinTheWrittenBoundOverTheWholeRange) {
  std::mt19937_64 random(21);
  double worst = 0;
  for (const LabelKind kind : {LabelKind::kSmoothing, LabelKind::kMarginalSmoothing, LabelKind::kMarginalRenorm}) {
    for (const uint32_t k : {1u, 2u, 5u, 10u, 64u, 255u}) {
      const LabelSpec spec = MakeSpec(kind, 100000, k);
      LabelSpec packed = spec;
      packed.values = ValueEncoding::kPacked;
      for (int trial = 0; trial < 3000; ++trial) {
        const std::vector<float> exact = RandomTopK(packed.num_values(), packed.has_tail(), random);
        const std::vector<float> stored = ThroughBits(packed, exact);
        double sum = 0;
        for (size_t i = 0; i < stored.size(); ++i) {
          ASSERT_GT(stored[i], 0);
          ASSERT_TRUE(i == 0 || stored[i] <= stored[i - 1]);
          sum += stored[i];
        }
        if (packed.has_tail()) {
          ASSERT_LT(sum, 1);
        } else {
          ASSERT_NEAR(sum, 1, 1e-6);
        }
        worst = std::max(worst, Divergence(exact, stored, packed.has_tail()));
      }
    }
  }
  RecordProperty("worst_nats", std::to_string(worst));
  std::printf("worst divergence of 54000 random labels: %.5f nats\n", worst);
  EXPECT_LT(worst, 0.0015);
  EXPECT_GT(worst, 0.0005) << "nothing was hard: the test tests nothing";
}

// Every single ratio and every tail from one end of the range to the other.
TEST(PackedValues, EveryRatioAndEveryTailIsWithinHalfAStep) {
  const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 1000, 2, ValueEncoding::kPacked);
  double worst_ratio = 0, worst_tail = 0;
  for (double octaves = 0; octaves <= 16; octaves += 1 / 128.0) {
    for (double odds = -20; odds <= 24; odds += 1 / 8.0) {
      const double z = 1 + std::exp2(-octaves) + std::exp2(odds);
      const std::vector<float> exact = {static_cast<float>(1 / z), static_cast<float>(std::exp2(-octaves) / z)};
      const std::vector<float> stored = ThroughBits(spec, exact);
      worst_ratio = std::max(worst_ratio, std::fabs(std::log2(stored[0] / stored[1]) - octaves));
      if (odds > -18 && octaves < 2) {  // below, float32 cannot say what the tail is
        const double got = (1.0 - stored[0] - stored[1]) / stored[0];
        const double tail = (1.0 - exact[0] - exact[1]) / exact[0];
        worst_tail = std::max(worst_tail, std::fabs(std::log2(got / tail)));
      }
    }
  }
  EXPECT_LT(worst_ratio, 99.0 / 64 + 0.01);
  EXPECT_LT(worst_tail, 85.0 / 64 + 0.06);
}

TEST(PackedValues, WhatTheKindsAndTheEdgesBecome) {
  const auto packed = [](LabelKind kind, uint32_t c, uint32_t k) {
    return MakeSpec(kind, c, k, ValueEncoding::kPacked);
  };
  EXPECT_EQ(PackedValueBits(packed(LabelKind::kHard, 1000, 1)), 0u);
  EXPECT_EQ(PackedValueBits(packed(LabelKind::kSmoothing, 1000, 1)), 7u);
  EXPECT_EQ(PackedValueBits(packed(LabelKind::kMarginalSmoothing, 1000, 5)), 27u);
  EXPECT_EQ(PackedValueBits(packed(LabelKind::kMarginalSmoothing, 5, 5)), 20u);  // no tail
  EXPECT_EQ(PackedValueBits(packed(LabelKind::kMarginalRenorm, 1000, 5)), 20u);
  EXPECT_EQ(PackedValueBits(packed(LabelKind::kFull, 10, 0)), 80u);
  EXPECT_EQ(PackedValueBits(packed(LabelKind::kLogits, 128, 0)), 64u + 1024u);

  using V = std::vector<float>;
  // Powers of two are levels: exact.
  EXPECT_EQ(ThroughBits(packed(LabelKind::kMarginalRenorm, 9, 2), V{0.5f, 0.5f}), (V{0.5f, 0.5f}));
  EXPECT_EQ(ThroughBits(packed(LabelKind::kFull, 3, 0), V{0.5f, 0.25f, 0.25f}), (V{0.5f, 0.25f, 0.25f}));
  EXPECT_EQ(ThroughBits(packed(LabelKind::kLogits, 3, 0), V{-1.5f, -1.5f, -1.5f}), (V{-1.5f, -1.5f, -1.5f}));
  EXPECT_EQ(ThroughBits(packed(LabelKind::kLogits, 3, 0), V{255, 0, 7}), (V{255, 0, 7}));
  // Nothing is ever 0 or NaN, however sure the teacher, or however little it said.
  for (const V& edge : {V{1, 0, 0}, V{0.4f, 0.4f, 0.2f}, V{0, 0, 0}, V{1e-30f, 1e-38f, 0}, V{1e-6f, 1e-6f, 1e-6f}}) {
    const V got = ThroughBits(packed(LabelKind::kMarginalSmoothing, 1000, 3), edge);
    double sum = 0;
    for (const float p : got) {
      EXPECT_TRUE(p > 0 && p < 1) << edge[0];
      sum += p;
    }
    EXPECT_LT(sum, 1) << edge[0];
  }
}

// Full labels of unsure and sure teachers.
TEST(PackedValues, FullLabelsStayClose) {
  std::mt19937_64 random(22);
  double worst = 0;
  for (const uint32_t classes : {2u, 10u, 1000u}) {
    const LabelSpec spec = MakeSpec(LabelKind::kFull, classes, 0, ValueEncoding::kPacked);
    for (int trial = 0; trial < 500; ++trial) {
      std::vector<float> p = test::RandomLogits(classes, 1 + static_cast<float>(trial % 8), random);
      Softmax(p, 1, p);
      worst = std::max(worst, Divergence(p, ThroughBits(spec, p), false));
    }
  }
  EXPECT_LT(worst, 1e-3);
}

TEST(PackedRecord, APaletteIsUsedWhereItSavesBits) {
  std::mt19937_64 random(23);
  const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 1000, 5, ValueEncoding::kPacked);
  Record record = test::RandomRecord(spec, 200, random);
  for (size_t i = 0; i < record.indices.size(); ++i) record.indices[i] = static_cast<uint32_t>(900 + i % 40);
  const auto bytes = EncodeRecord(spec, record);
  const auto view = RecordView::Open(*bytes, spec);
  EXPECT_EQ(view->packed_layout().palette_size, 40u);
  EXPECT_EQ(view->packed_layout().crop_bits, 36u + 1 + 5 * 6 + 27);  // 94 bits a crop of a 500 x 375 image
  EXPECT_LE(bytes->size(), 200 * 94 / 8 + 40 * 10 / 8 + 108u);
  Record one = test::RandomRecord(spec, 1, random);
  const auto few = EncodeRecord(spec, one);
  EXPECT_EQ(RecordView::Open(*few, spec)->packed_layout().palette_size, 0u);
}

// All of a record at once is what its crops are one by one, whatever single bit of it is flipped: the same labels, or the same complaint.
TEST(PackedRecord, IsReadAtOnceAsItIsCropByCrop) {
  std::mt19937_64 random(24);
  for (const LabelKind kind : {LabelKind::kHard, LabelKind::kSmoothing, LabelKind::kMarginalSmoothing, LabelKind::kMarginalRenorm, LabelKind::kFull, LabelKind::kLogits}) {
    const bool all_classes = kind == LabelKind::kFull || kind == LabelKind::kLogits;
    for (const auto& [classes, k, crops] : {std::tuple{1000u, 5u, 30u}, {12u, 10u, 7u}, {40u, 16u, 9u}, {40u, 17u, 3u}, {100000u, 3u, 5u}}) {
      const LabelSpec spec = MakeSpec(kind, all_classes ? 3 : classes, k, ValueEncoding::kPacked);
      Record record = test::RandomRecord(spec, crops, random);
      if (kind == LabelKind::kLogits) {  // the largest is one bit away from infinity
        for (float& z : record.values) z = std::min(z, 1.0f);
        for (uint32_t i = 0; i < crops; ++i) record.values[i * 3] = 1;
      }
      std::vector<std::byte> bytes = *EncodeRecord(spec, record);
      const size_t packed = bytes.size() - RecordView::Open(bytes, spec)->packed_bits().size();  // somewhere before its end
      int refused = 0;
      for (int trial = 0; trial < 300; ++trial) {
        const size_t bit = packed * 8 + random() % ((bytes.size() - packed) * 8);
        const auto flip = [&] { bytes[bit / 8] ^= static_cast<std::byte>(1u << bit % 8); };
        if (trial > 0) flip();
        if (const auto view = RecordView::Open(bytes, spec)) {
          const auto all = DecodeRecord(*view);
          EXPECT_EQ(static_cast<bool>(view->Validate()), static_cast<bool>(all));
          Result<void> one;
          for (uint32_t i = 0; i < crops && one; ++i) {
            PixelBox box;
            std::vector<uint32_t> indices(spec.num_indices());
            std::vector<float> values(spec.num_values());
            one = view->ReadCrop(i, &box, indices.data(), values.data());
            if (!all || !one) continue;
            EXPECT_EQ(all->pixel_boxes[i], box);
            EXPECT_EQ(all->flips[i] != 0, view->flip(i));
            EXPECT_TRUE(std::equal(indices.begin(), indices.end(), all->indices.begin() + i * spec.num_indices()));
            EXPECT_TRUE(std::equal(values.begin(), values.end(), all->values.begin() + i * spec.num_values()));
          }
          if (!one) {
            ++refused;
            ASSERT_FALSE(all) << Describe(spec) << ": " << one.error().message;
            EXPECT_EQ(all.error().message, one.error().message);
          }
        }
        if (trial > 0) flip();
      }
      EXPECT_GT(refused, 0) << Describe(spec);
    }
  }
}

}  // namespace
}  // namespace fkdb
