// SPDX-License-Identifier: Apache-2.0
// Recovery, loss and gradient against a float64 computation on dense labels.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "cuda/label_ops.h"
#include "cuda/unpack.h"
#include "format/bits.h"
#include "format/compact.h"
#include "format/half.h"
#include "format/recover.h"
#include "tests/format/test_labels.h"
#include "tests/simd_targets.h"

namespace fkdb {
namespace {

using test::Describe;
using test::MakeSpec;

// Stored labels of `rows` crops, as a LabelBatch would hold them, and their dense form in float64 by
// the paper's formulas.
struct Labels {
  LabelSpec spec;
  std::vector<uint32_t> indices;
  std::vector<float> values;
  std::vector<double> dense;  // (rows, C)

  Labels(const LabelSpec& s, uint32_t rows, double tau, std::mt19937_64& random) : spec(s) {
    const Record record = test::RandomRecord(spec, rows, random);
    const auto bytes = EncodeRecord(spec, record);
    const auto view = RecordView::Open(*bytes, spec);
    const size_t n = spec.num_indices(), v = spec.num_values(), c = spec.num_classes;
    indices.resize(rows * n);
    values.resize(rows * v);
    dense.assign(rows * c, 0);
    for (uint32_t r = 0; r < rows; ++r) {
      if (n > 0) view->CopyIndices(r, indices.data() + r * n);
      if (v > 0) view->CopyValues(r, values.data() + r * v);
      double* y = dense.data() + r * c;
      const float* p = values.data() + r * v;
      double sum = 0;
      for (size_t i = 0; i < v; ++i) sum += p[i];
      const double tail = spec.top_k < c ? (1 - sum) / static_cast<double>(c - spec.top_k) : 0;
      switch (spec.kind) {
        case LabelKind::kFull:
          for (size_t i = 0; i < c; ++i) y[i] = spec.values == ValueEncoding::kF32 ? p[i] : p[i] / sum;
          break;
        case LabelKind::kHard:
          y[indices[r]] = 1;
          break;
        case LabelKind::kSmoothing:
        case LabelKind::kMarginalSmoothing:
          std::fill(y, y + c, std::max(0.0, tail));
          for (size_t i = 0; i < n; ++i) y[indices[r * n + i]] = tail > 0 ? p[i] : p[i] / sum;
          break;
        case LabelKind::kMarginalRenorm:
          for (size_t i = 0; i < n; ++i) y[indices[r * n + i]] = p[i] / sum;
          break;
        case LabelKind::kLabelMap:  // no label of a crop
        case LabelKind::kLogits: {
          double largest = -INFINITY, total = 0;
          for (size_t i = 0; i < c; ++i) largest = std::max(largest, double{p[i]});
          for (size_t i = 0; i < c; ++i) total += y[i] = std::exp((p[i] - largest) / tau);
          for (size_t i = 0; i < c; ++i) y[i] /= total;
          break;
        }
      }
    }
  }
  SparseLabels sparse() const { return SparseLabelsOf(spec, indices.data(), values.data()); }
};

std::vector<LabelSpec> AllSpecs() {
  std::vector<LabelSpec> specs;
  for (const LabelKind kind : test::kAllKinds) {
    for (const ValueEncoding encoding : test::kAllValues) {
      for (const uint32_t classes : {2u, 10u, 1000u, 21841u}) {
        for (const uint32_t k : {1u, 2u, 5u, 10u}) {
          const bool marginal = kind == LabelKind::kMarginalSmoothing || kind == LabelKind::kMarginalRenorm;
          if (k > classes || (!marginal && k > 1)) continue;
          specs.push_back(MakeSpec(kind, classes, k, encoding));
        }
      }
    }
  }
  return specs;
}

TEST(LabelKernels, DenseRecoveryEqualsTheFormulasAndTheReference) {
  std::mt19937_64 random(1);
  for (const LabelSpec& spec : AllSpecs()) {
    constexpr float kTau = 2.5f;
    constexpr uint32_t kRows = 5;
    const Labels labels(spec, kRows, kTau, random);
    std::vector<float> dense(size_t{kRows} * spec.num_classes, NAN), reference(spec.num_classes);
    RecoverDense(labels.sparse(), kRows, kTau, dense.data());
    for (uint32_t r = 0; r < kRows; ++r) {
      double sum = 0;
      RecoverCrop(spec, std::span(labels.indices).subspan(r * spec.num_indices(), spec.num_indices()),
                  std::span(labels.values).subspan(r * spec.num_values(), spec.num_values()), kTau, reference);
      for (uint32_t c = 0; c < spec.num_classes; ++c) {
        const float y = dense[size_t{r} * spec.num_classes + c];
        ASSERT_NEAR(y, labels.dense[size_t{r} * spec.num_classes + c], 1e-6) << Describe(spec);
        ASSERT_NEAR(y, reference[c], 1e-6) << Describe(spec);
        sum += y;
      }
      ASSERT_NEAR(sum, 1, 1e-5) << Describe(spec);
    }
  }
}

TEST(LabelKernels, LossAndGradientEqualFloat64) {
  std::mt19937_64 random(2);
  double worst_loss = 0, worst_gradient = 0;
  for (const LabelSpec& spec : AllSpecs()) {
    for (const float temperature : {1.0f, 4.0f}) {
      constexpr uint32_t kRows = 6;
      LossArguments arguments;
      arguments.temperature = temperature;
      arguments.tau = 0.5f;
      arguments.gradient_scale = 0.25f;
      const Labels labels(spec, kRows, arguments.tau, random);
      const size_t c = spec.num_classes;
      std::vector<float> logits, gradient(kRows * c, NAN), losses(kRows, NAN);
      for (uint32_t r = 0; r < kRows; ++r) {
        const auto row = test::RandomLogits(spec.num_classes, r < 3 ? 1.0f : 6.0f, random);
        logits.insert(logits.end(), row.begin(), row.end());
      }
      test::ForEachSimdTarget([&] {
        SoftCrossEntropy(labels.sparse(), 0, kRows, arguments, logits.data(), losses.data(), gradient.data());
        for (uint32_t r = 0; r < kRows; ++r) {
          const float* z = logits.data() + r * c;
          const double* y = labels.dense.data() + r * c;
          double total = 0, loss = 0, sum = 0;
          for (size_t i = 0; i < c; ++i) total += std::exp(double{z[i]} / temperature);
          for (size_t i = 0; i < c; ++i) {
            loss -= y[i] * (double{z[i]} / temperature - std::log(total));
            sum += y[i];
          }
          worst_loss = std::max(worst_loss, std::fabs(losses[r] - loss));
          ASSERT_NEAR(losses[r], loss, 1e-5) << Describe(spec);
          for (size_t i = 0; i < c; ++i) {
            const double g = 0.25 / temperature * (sum * std::exp(double{z[i]} / temperature) / total - y[i]);
            worst_gradient = std::max(worst_gradient, std::fabs(gradient[r * c + i] - g));
            ASSERT_NEAR(gradient[r * c + i], g, 1e-6) << Describe(spec) << " class " << i;
          }
        }
      });
    }
  }
  RecordProperty("worst_loss_error", std::to_string(worst_loss));
  RecordProperty("worst_gradient_error", std::to_string(worst_gradient));
}

TEST(LabelKernels, GradientMayOverwriteTheLogits) {
  std::mt19937_64 random(3);
  for (const LabelSpec& spec : AllSpecs()) {
    const Labels labels(spec, 2, 1, random);
    std::vector<float> logits = test::RandomLogits(spec.num_classes * 2, 2, random), losses(2);
    std::vector<float> apart(logits.size());
    SoftCrossEntropy(labels.sparse(), 0, 2, {}, logits.data(), losses.data(), apart.data());
    SoftCrossEntropy(labels.sparse(), 0, 2, {}, logits.data(), losses.data(), logits.data());
    ASSERT_EQ(logits, apart) << Describe(spec);
  }
}

TEST(LabelKernels, SpikedLogitsStayFinite) {
  std::mt19937_64 random(4);
  for (const float spike : {80.0f, 1e4f, 1e30f}) {
    const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 1000, 5);
    const Labels labels(spec, 1, 1, random);
    std::vector<float> logits(1000, -spike), gradient(1000);
    logits[7] = spike;
    float loss = 0;
    SoftCrossEntropy(labels.sparse(), 0, 1, {}, logits.data(), &loss, gradient.data());
    EXPECT_TRUE(std::isfinite(loss)) << spike;
    for (const float g : gradient) EXPECT_TRUE(std::isfinite(g) && std::fabs(g) <= 1) << spike;
  }
}

TEST(LabelKernels, ANaNLogitMakesItsRowNaNAndNoOther) {
  std::mt19937_64 random(5);
  const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 10, 5);
  const Labels labels(spec, 2, 1, random);
  std::vector<float> logits(20, 0.5f), gradient(20), losses(2);
  logits[3] = NAN;
  SoftCrossEntropy(labels.sparse(), 0, 2, {}, logits.data(), losses.data(), gradient.data());
  EXPECT_TRUE(std::isnan(losses[0]));
  EXPECT_TRUE(std::isfinite(losses[1]));
  for (int c = 0; c < 10; ++c) {
    EXPECT_TRUE(std::isnan(gradient[static_cast<size_t>(c)]));
    EXPECT_TRUE(std::isfinite(gradient[static_cast<size_t>(c) + 10]));
  }
}

// Every thousandth float from -104 to 0: an error of 2 units in the last place is 2.4e-7 at most.
TEST(LabelKernels, ExpErrsByLessThanTwoUnitsInTheLastPlace) {
  std::vector<float> z, e;
  for (float x = 0; x > -104; x = std::bit_cast<float>(std::bit_cast<uint32_t>(x) + (x > -1e-3f ? 1000003u : 1009u))) {
    z.push_back(x == 0 ? -1e-12f : x);
    x = z.back();
  }
  e.resize(z.size());
  test::ForEachSimdTarget([&] {
    double worst = 0;
    OneLane::SumExp(z.data(), static_cast<uint32_t>(z.size()), 0, 1, e.data());
    for (size_t i = 0; i < z.size(); ++i) {
      const double exact = std::exp(double{z[i]});
      if (z[i] < -86.9f) {
        ASSERT_EQ(e[i], 0) << z[i];
      } else {
        worst = std::max(worst, std::fabs(e[i] - exact) / exact);
      }
    }
    EXPECT_LT(worst, 2.4e-7);
    EXPECT_GT(worst, 1e-8);  // it did compute something
  });
  EXPECT_GT(z.size(), 10000u);
}

// The loss of rounded logits, and the gradient's float32 rounded once.
TEST(LabelKernels, Bfloat16IsFloat32Rounded) {
  std::mt19937_64 random(6);
  for (const LabelSpec& spec : AllSpecs()) {
    constexpr uint32_t kRows = 3;
    const size_t n = kRows * spec.num_classes;
    const Labels labels(spec, kRows, 1, random);
    const std::vector<float> logits = test::RandomLogits(spec.num_classes * kRows, 4, random);
    std::vector<float> rounded(n), gradient(n), losses(kRows), losses16(kRows);
    std::vector<uint16_t> logits16(n), gradient16(n, 0xffff);
    for (size_t i = 0; i < n; ++i) rounded[i] = FloatFromBf16(logits16[i] = Bf16FromFloat(logits[i]));
    SoftCrossEntropy(labels.sparse(), 0, kRows, {}, rounded.data(), losses.data(), gradient.data());
    test::ForEachSimdTarget([&] {
      SoftCrossEntropyBf16(labels.sparse(), 0, kRows, {}, logits16.data(), losses16.data(), gradient16.data());
      for (uint32_t r = 0; r < kRows; ++r) ASSERT_NEAR(losses16[r], losses[r], 1e-5) << Describe(spec);
      for (size_t i = 0; i < n; ++i) {
        ASSERT_NEAR(FloatFromBf16(gradient16[i]), gradient[i], std::fabs(gradient[i]) * 0x1p-8 + 1e-7) << Describe(spec);
      }
    });
  }
}

TEST(LabelKernels, Bfloat16RowsRoundAsOneNumberDoes) {
  std::vector<float> all;
  for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 65521) all.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  all.insert(all.end(), {0.0f, -0.0f, INFINITY, -INFINITY, NAN, std::bit_cast<float>(0x7f800001u), 1.00390625f, 3.38953139e38f});
  std::vector<uint16_t> rounded(all.size());
  std::vector<float> back(all.size());
  test::ForEachSimdTarget([&] {
    RowToBf16(all.data(), all.size(), rounded.data());
    RowFromBf16(rounded.data(), rounded.size(), back.data());
    for (size_t i = 0; i < all.size(); ++i) {
      ASSERT_EQ(rounded[i], Bf16FromFloat(all[i])) << all[i];
      ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), uint32_t{rounded[i]} << 16);
    }
  });
}

// A class that a student rules out costs nothing where the label says 0 too.
TEST(LabelKernels, ALogitOfMinusInfinityIsProbabilityZero) {
  const LabelSpec spec = MakeSpec(LabelKind::kFull, 4, 0, ValueEncoding::kF32);
  const std::vector<float> values = {0.5f, 0.25f, 0.25f, 0};
  const std::vector<float> logits = {1, 1, 1, -INFINITY};
  std::vector<float> gradient(4);
  float loss = 0;
  test::ForEachSimdTarget([&] {
    SoftCrossEntropy(SparseLabelsOf(spec, nullptr, values.data()), 0, 1, {}, logits.data(), &loss, gradient.data());
    EXPECT_NEAR(loss, std::log(3.0), 1e-6);
    EXPECT_EQ(gradient[3], 0);
  });
}

// What a batch holds of a record, unpacked, is what the record's view says, bit for bit.
TEST(Unpack, GivesTheBitsOfTheRecord) {
  std::mt19937_64 random(8);
  std::vector<LabelSpec> specs = AllSpecs();
  for (const uint32_t k : {1u, 2u, 5u, 10u, 11u, 12u, 40u}) {
    for (const LabelKind kind : {LabelKind::kMarginalSmoothing, LabelKind::kMarginalRenorm}) {
      specs.push_back(MakeSpec(kind, k == 40 ? 70000 : 50, k, ValueEncoding::kPacked));
    }
  }
  for (const LabelSpec& spec : specs) {
    for (const uint32_t rows : {1u, 7u, 37u}) {
      const Record record = test::RandomRecord(spec, rows, random);
      const auto bytes = EncodeRecord(spec, record);
      const auto view = RecordView::Open(*bytes, spec);
      const size_t index_bytes = CompactIndexBytes(spec), value_bytes = CompactValueBytes(spec);
      std::vector<std::byte> indices(rows * index_bytes), values(rows * value_bytes + kBitPadding);
      std::vector<uint32_t> expected_indices(rows * spec.num_indices());
      std::vector<float> expected_values(rows * spec.num_values());
      for (uint32_t r = 0; r < rows; ++r) {
        PixelBox box;
        ASSERT_TRUE(view->ReadCompactCrop(r, &box, indices.data() + r * index_bytes, values.data() + r * value_bytes));
        EXPECT_EQ(box, view->pixel_box(r));
        view->CopyIndices(r, expected_indices.data() + r * spec.num_indices());
        view->CopyValues(r, expected_values.data() + r * spec.num_values());
      }
      test::ForEachSimdTarget([&] {
        std::vector<uint32_t> found_indices(expected_indices.size() + 1, 77);
        std::vector<float> found_values(expected_values.size() + 1, 77);
        UnpackLabels(spec, indices.data(), values.data(), rows, found_indices.data(), found_values.data());
        for (size_t i = 0; i < expected_indices.size(); ++i) ASSERT_EQ(found_indices[i], expected_indices[i]) << Describe(spec);
        for (size_t i = 0; i < expected_values.size(); ++i) {
          ASSERT_EQ(std::bit_cast<uint32_t>(found_values[i]), std::bit_cast<uint32_t>(expected_values[i])) << Describe(spec);
        }
        ASSERT_TRUE(found_indices.back() == 77 && found_values.back() == 77) << "wrote behind the end";
      });
    }
  }
}

TEST(Unpack, FourteenBytesACropAtKFive) {
  const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 1000, 5, ValueEncoding::kPacked);
  EXPECT_EQ(CompactIndexBytes(spec) + CompactValueBytes(spec), 14u);
}

}  // namespace
}  // namespace fkdb
