// SPDX-License-Identifier: Apache-2.0
// One suite for every place where the kernels run: recovery, loss and gradient against float64 on dense labels.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <type_traits>

#include "cuda/host_row.h"
#include "tests/cuda/places.h"
#include "tests/cuda/stored_labels.h"

namespace fkdb {
namespace {

using test::AllSpecs;
using test::Describe;
using test::Labels;
using test::MakeSpec;

// FKDB_TEST_SEED repeats a run; without it every run draws other numbers.
uint64_t Seed() {
  static const uint64_t seed = [] {
    const char* given = std::getenv("FKDB_TEST_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  }();
  return seed;
}

template <class Number>
using Bits = std::conditional_t<sizeof(Number) == 4, uint32_t, uint16_t>;

// A matrix of numbers that lies `skip` numbers behind a 16-byte boundary, between guards.
template <class Number>
class Rows {
 public:
  Rows(size_t count, size_t skip) : skip_(kGuard + skip), count_(count), all_(skip_ + count + kGuard, Poison()) {}
  Number* get() { return reinterpret_cast<Number*>(all_.data() + skip_); }
  double operator[](size_t i) { return ToFloat(get()[i]); }
  std::span<const Bits<Number>> bits() const { return std::span(all_).subspan(skip_, count_); }
  bool OutsideIsUntouched() const {
    const auto poisoned = [](Bits<Number> bits) { return bits == Poison(); };
    return std::all_of(all_.begin(), all_.begin() + static_cast<ptrdiff_t>(skip_), poisoned) &&
           std::all_of(all_.end() - kGuard, all_.end(), poisoned);
  }

 private:
  static constexpr size_t kGuard = 16;  // numbers: a multiple of 16 bytes
  static Bits<Number> Poison() { return static_cast<Bits<Number>>(-1); }  // NaN

  size_t skip_, count_;
  std::vector<Bits<Number>> all_;
};

constexpr uint32_t kRows = 5;

// The relative error of rounding once to 16 bits; that of float32 is in the bounds themselves.
template <class Number>
constexpr double kRounding = std::is_same_v<Number, float> ? 0 : std::is_same_v<Number, Half> ? 0x1p-11 : 0x1p-8;
template <class Number>
constexpr double kSmallest = std::is_same_v<Number, Half> ? 0x1p-25 : 0;  // half the smallest step near 0

template <class Place>
class Kernels : public testing::Test {
 protected:
  using Number = typename Place::Number;

  void SetUp() override {
    if constexpr (test::kIsGpu<Place>) {
      FKDB_END_WITHOUT_GPU("the same tests run on the CPU");
    }
  }

  Rows<Number> RandomRows(uint32_t classes, size_t skip) {
    Rows<Number> rows(size_t{kRows} * classes, skip);
    for (uint32_t r = 0; r < kRows; ++r) {
      const auto row = test::RandomLogits(classes, r % 2 == 0 ? 1.0f : 6.0f, random_);
      for (uint32_t c = 0; c < classes; ++c) FromFloat(row[c], rows.get() + size_t{r} * classes + c);
    }
    return rows;
  }

  // Those that this place takes.
  std::vector<LabelSpec> Specs() {
    std::vector<LabelSpec> specs;
    for (const LabelSpec& spec : AllSpecs()) {
      if (Place::Takes(SparseLabelsOf(spec, nullptr, nullptr))) specs.push_back(spec);
    }
    return specs;
  }

  struct Outcome {
    std::vector<float> losses;
    Rows<Number> gradient;
  };
  Outcome Loss(const SparseLabels& labels, const LossArguments& arguments, Rows<Number>& logits, size_t skip) {
    Outcome outcome = {std::vector<float>(kRows, NAN), Rows<Number>(size_t{kRows} * labels.num_classes, skip)};
    Place::Loss(labels, kRows, arguments, logits.get(), outcome.losses.data(), outcome.gradient.get());
    EXPECT_TRUE(outcome.gradient.OutsideIsUntouched());
    EXPECT_TRUE(logits.OutsideIsUntouched());
    return outcome;
  }

  // dense (kRows, C) in float64, and the same for the outcome.
  void ExpectNear(Outcome& outcome, Rows<Number>& logits, std::span<const double> dense, const LossArguments& arguments,
                  const std::string& what) {
    const size_t classes = dense.size() / kRows;
    for (uint32_t r = 0; r < kRows; ++r) {
      const double* y = dense.data() + r * classes;
      double largest = -INFINITY, total = 0, loss = 0, sum = 0;
      for (size_t c = 0; c < classes; ++c) largest = std::max(largest, logits[r * classes + c]);
      const auto z = [&](size_t c) { return (logits[r * classes + c] - largest) / arguments.temperature; };
      for (size_t c = 0; c < classes; ++c) total += std::exp(z(c));
      for (size_t c = 0; c < classes; ++c) {
        if (y[c] != 0) loss -= y[c] * (z(c) - std::log(total));
        sum += y[c];
      }
      worst_loss_ = std::max(worst_loss_, std::fabs(outcome.losses[r] - loss) / std::max(1.0, loss));
      // The CPU adds up in double, lanes in float. Labels are float in both: the exp of a stored logit carries the
      // rounding of its argument (of 30: 1e-6 of the label), and the loss grows with both.
      constexpr bool kInDouble = std::is_same_v<Place, test::Cpu<Number>>;
      ASSERT_NEAR(outcome.losses[r], loss, kInDouble ? 4e-6 + 1e-6 * loss : 1e-5 * std::max(1.0, loss)) << what << " row " << r;
      const double scale = double{arguments.gradient_scale} / arguments.temperature *
                           (arguments.row_scales == nullptr ? 1 : arguments.row_scales[r]);
      for (size_t c = 0; c < classes; ++c) {
        const double g = scale * (sum * std::exp(z(c)) / total - y[c]);
        const double near = std::fabs(g) * kRounding<Number> * 1.01 + kSmallest<Number> + 4e-6 * std::fabs(scale);
        worst_gradient_ = std::max(worst_gradient_, std::fabs(outcome.gradient[r * classes + c] - g) / std::fabs(scale));
        ASSERT_NEAR(outcome.gradient[r * classes + c], g, near) << what << " row " << r << " class " << c;
      }
    }
  }

  testing::ScopedTrace trace_{__FILE__, __LINE__, "FKDB_TEST_SEED=" + std::to_string(Seed())};
  std::mt19937_64 random_{Seed()};
  double worst_loss_ = 0, worst_gradient_ = 0;  // seen so far: of max(1, loss), and of the gradient's scale
};

TYPED_TEST_SUITE_P(Kernels);

TYPED_TEST_P(Kernels, DenseRecoveryEqualsTheFormulasAndTheReference) {
  using Number = typename TypeParam::Number;
  for (const LabelSpec& spec : this->Specs()) {
    constexpr float kTau = 2.5f;
    const Labels labels(spec, kRows, kTau, this->random_);
    const uint32_t classes = spec.num_classes;
    std::vector<float> reference(classes);
    Rows<Number> dense(size_t{kRows} * classes, spec.top_k % 2);
    TypeParam::Recover(labels.sparse(), kRows, kTau, dense.get());
    ASSERT_TRUE(dense.OutsideIsUntouched()) << Describe(spec);
    for (uint32_t r = 0; r < kRows; ++r) {
      RecoverCrop(spec, std::span(labels.indices).subspan(r * spec.num_indices(), spec.num_indices()),
                  std::span(labels.values).subspan(r * spec.num_values(), spec.num_values()), kTau, reference);
      double sum = 0;
      for (uint32_t c = 0; c < classes; ++c) {
        const double y = dense[size_t{r} * classes + c], exact = labels.dense[size_t{r} * classes + c];
        const double near = exact * kRounding<Number> * 1.01 + kSmallest<Number> + 1e-6;
        ASSERT_NEAR(y, exact, near) << Describe(spec);
        ASSERT_NEAR(y, reference[c], near) << Describe(spec);
        sum += y;
      }
      ASSERT_NEAR(sum, 1, std::max(1e-5, 2 * kRounding<Number>)) << Describe(spec);
    }
  }
}

TYPED_TEST_P(Kernels, LossAndGradientEqualFloat64) {
  for (const LabelSpec& spec : this->Specs()) {
    for (const float temperature : {1.0f, 4.0f}) {
      LossArguments arguments;
      arguments.temperature = temperature;
      arguments.tau = 0.5f;
      arguments.gradient_scale = 0.25f;
      const Labels labels(spec, kRows, arguments.tau, this->random_);
      // Odd numbers of classes, and these, begin rows anywhere; a gradient need not lie as its logits do.
      auto logits = this->RandomRows(spec.num_classes, spec.top_k % 3);
      TypeParam::ForEachWay([&] {
        auto outcome = this->Loss(labels.sparse(), arguments, logits, temperature == 1 ? spec.top_k % 3 : 3);
        this->ExpectNear(outcome, logits, labels.dense, arguments, Describe(spec));
      });
    }
  }
  this->RecordProperty("worst_loss", std::to_string(this->worst_loss_ * 1e6) + "e-6");
  this->RecordProperty("worst_gradient", std::to_string(this->worst_gradient_ * 1e6) + "e-6");
}

TYPED_TEST_P(Kernels, LossAloneIsTheSame) {
  for (const LabelSpec& spec : this->Specs()) {
    const Labels labels(spec, kRows, 1, this->random_);
    auto logits = this->RandomRows(spec.num_classes, 0);
    const auto both = this->Loss(labels.sparse(), {}, logits, 0);
    std::vector<float> alone(kRows, NAN);
    TypeParam::Loss(labels.sparse(), kRows, {}, logits.get(), alone.data(), nullptr);
    ASSERT_EQ(alone, both.losses) << Describe(spec);
  }
}

TYPED_TEST_P(Kernels, GradientMayOverwriteTheLogits) {
  for (const LabelSpec& spec : this->Specs()) {
    if (spec.num_indices() > TypeParam::kMostIndicesInPlace) continue;
    const Labels labels(spec, kRows, 1, this->random_);
    auto logits = this->RandomRows(spec.num_classes, 1);
    const auto apart = this->Loss(labels.sparse(), {}, logits, 1);
    std::vector<float> losses(kRows);
    TypeParam::Loss(labels.sparse(), kRows, {}, logits.get(), losses.data(), logits.get());
    ASSERT_TRUE(std::ranges::equal(logits.bits(), apart.gradient.bits())) << Describe(spec);
    ASSERT_EQ(losses, apart.losses) << Describe(spec);
  }
}

// mixup and CutMix: the label of a row and a partner's, which may share classes or be the same row.
TYPED_TEST_P(Kernels, MixedLabelsEqualDenseOnesThatWereMixed) {
  for (const LabelSpec& spec : this->Specs()) {
    const size_t classes = spec.num_classes;
    LossArguments arguments;
    arguments.temperature = 2;
    const Labels labels(spec, kRows, 1, this->random_);
    const std::vector<uint32_t> partners = {1, 0, 2, 4, 0};
    const std::vector<float> lambdas = {0.25f, 0.5f, 0.7f, 1, 0};
    const std::vector<float> scales = {1, 2, 0.5f, 0, 3};
    arguments.partners = partners.data();
    arguments.lambdas = lambdas.data();
    arguments.row_scales = scales.data();
    std::vector<double> mixed(kRows * classes);
    for (size_t i = 0; i < mixed.size(); ++i) {
      const size_t r = i / classes, c = i % classes;
      mixed[i] = lambdas[r] * labels.dense[i] + (1 - double{lambdas[r]}) * labels.dense[partners[r] * classes + c];
    }
    auto logits = this->RandomRows(spec.num_classes, 0);
    auto outcome = this->Loss(labels.sparse(), arguments, logits, 0);
    this->ExpectNear(outcome, logits, mixed, arguments, Describe(spec));
  }
}

// As many stored classes as there are leave no tail; and rows of every length, at every place in a vector.
TYPED_TEST_P(Kernels, EveryClassStoredAndRowsOfEveryLength) {
  for (const uint32_t classes : {2u, 3u, 4u, 5u, 7u, 8u, 9u, 15u, 16u, 17u, 31u, 33u, 63u, 64u, 65u, 97u, 100u, 127u, 129u}) {
    for (const auto& [kind, k] : {std::pair(LabelKind::kMarginalSmoothing, classes), {LabelKind::kMarginalRenorm, classes},
                                  {LabelKind::kMarginalSmoothing, 2u}, {LabelKind::kFull, 0u}}) {
      const LabelSpec spec = MakeSpec(kind, classes, k);
      const Labels labels(spec, kRows, 1, this->random_);
      if (!TypeParam::Takes(labels.sparse())) continue;
      auto logits = this->RandomRows(classes, classes % 4);
      auto outcome = this->Loss(labels.sparse(), {}, logits, classes % 4);
      this->ExpectNear(outcome, logits, labels.dense, {}, Describe(spec));
    }
  }
}

// The lengths where the GPU goes over from one arrangement of lanes to the next, and what is longer than all.
TYPED_TEST_P(Kernels, LongRows) {
  for (const uint32_t classes : {249u, 253u, 254u, 1017u, 1021u, 1022u, 2041u, 2045u, 2046u, 4096u, 8185u, 8189u, 8190u, 21841u, 24569u, 24573u, 24574u, 100000u}) {
    for (const LabelKind kind : {LabelKind::kMarginalSmoothing, LabelKind::kFull, LabelKind::kLogits}) {
      const LabelSpec spec = MakeSpec(kind, classes, 5);
      if (!TypeParam::Takes(SparseLabelsOf(spec, nullptr, nullptr))) continue;
      const Labels labels(spec, kRows, 1, this->random_);
      auto logits = this->RandomRows(classes, 1);
      auto outcome = this->Loss(labels.sparse(), {}, logits, 1);
      this->ExpectNear(outcome, logits, labels.dense, {}, Describe(spec));
    }
  }
}

TYPED_TEST_P(Kernels, TheSameBitsAtEveryRun) {
  for (const LabelSpec& spec : this->Specs()) {
    const Labels labels(spec, kRows, 1, this->random_);
    auto logits = this->RandomRows(spec.num_classes, 0);
    const auto first = this->Loss(labels.sparse(), {}, logits, 0);
    const auto second = this->Loss(labels.sparse(), {}, logits, 0);
    ASSERT_EQ(first.losses, second.losses) << Describe(spec);
    ASSERT_TRUE(std::ranges::equal(first.gradient.bits(), second.gradient.bits())) << Describe(spec);
  }
}

// The loss's slope along each axis, by differences.
TYPED_TEST_P(Kernels, GradientIsTheSlopeOfTheLoss) {
  if constexpr (std::is_same_v<typename TypeParam::Number, float>) {
    for (const LabelKind kind : test::kAllKinds) {
      const LabelSpec spec = MakeSpec(kind, 12, 3, ValueEncoding::kF32);
      const Labels labels(spec, kRows, 1, this->random_);
      LossArguments arguments;
      arguments.temperature = 1.5f;
      auto logits = this->RandomRows(12, 0);
      auto outcome = this->Loss(labels.sparse(), arguments, logits, 0);
      for (uint32_t c = 0; c < 12; ++c) {
        constexpr float kStep = 0.0625f;
        std::vector<float> above(kRows), below(kRows);
        for (auto& [to, step] : {std::pair(&above, kStep), {&below, -kStep}}) {
          auto moved = logits;
          for (uint32_t r = 0; r < kRows; ++r) moved.get()[r * 12 + c] += step;
          TypeParam::Loss(labels.sparse(), kRows, arguments, moved.get(), to->data(), nullptr);
        }
        for (uint32_t r = 0; r < kRows; ++r) {
          ASSERT_NEAR((above[r] - below[r]) / (2 * kStep), outcome.gradient[r * 12 + c], 3e-4) << Describe(spec);
        }
      }
    }
  } else {
    GTEST_SKIP() << "differences of numbers of 16 bits are too coarse; float's place tests the same code";
  }
}

// Computed in float32 and scaled before it is rounded: a gradient of 1e-7, which is 0 in binary16, survives.
TYPED_TEST_P(Kernels, TheScaleIsAppliedBeforeRounding) {
  constexpr uint32_t kClasses = 10;
  const LabelSpec spec = MakeSpec(LabelKind::kHard, kClasses, 1);
  const std::vector<uint32_t> indices(kRows, 3);
  Rows<typename TypeParam::Number> logits(kRows * kClasses, 0);
  for (uint32_t i = 0; i < kRows * kClasses; ++i) FromFloat(i % kClasses == 3 ? 16.0f : 0.0f, logits.get() + i);
  LossArguments arguments;
  arguments.gradient_scale = 65536;
  auto outcome = this->Loss(SparseLabelsOf(spec, indices.data(), nullptr), arguments, logits, 0);
  const double expected = 65536 * std::exp(-16.0) / (1 + 9 * std::exp(-16.0));
  for (uint32_t r = 0; r < kRows; ++r) EXPECT_NEAR(outcome.gradient[r * kClasses], expected, 0.01 * expected);
}

TYPED_TEST_P(Kernels, SpikedLogitsStayFinite) {
  using Number = typename TypeParam::Number;
  for (const uint32_t classes : {20u, 1000u}) {
    const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, classes, 5);
    const Labels labels(spec, kRows, 1, this->random_);
    if (!TypeParam::Takes(labels.sparse())) continue;
    for (const float spike : {80.0f, 1e4f, 1e30f}) {
      if (std::is_same_v<Number, Half> && spike > 65504) continue;
      Rows<Number> logits(size_t{kRows} * classes, 0);
      for (uint32_t i = 0; i < kRows * classes; ++i) FromFloat(i % classes == 7 ? spike : -spike, logits.get() + i);
      auto outcome = this->Loss(labels.sparse(), {}, logits, 0);
      for (const float loss : outcome.losses) EXPECT_TRUE(std::isfinite(loss)) << spike;
      for (size_t i = 0; i < kRows * classes; ++i) ASSERT_LE(std::fabs(outcome.gradient[i]), 1) << spike;
    }
  }
}

// Which logits are none: what label_ops.h says of them.
TYPED_TEST_P(Kernels, ANaNOrInfiniteLogitMakesItsRowNaNAndNoOther) {
  for (const LabelKind kind : test::kAllKinds) {
    const LabelSpec spec = MakeSpec(kind, 20, 5, ValueEncoding::kF32);
    const Labels labels(spec, kRows, 1, this->random_);
    for (const float bad : {NAN, INFINITY}) {
      auto logits = this->RandomRows(20, 0);
      FromFloat(bad, logits.get() + 20 + 13);
      auto outcome = this->Loss(labels.sparse(), {}, logits, 0);
      for (uint32_t i = 0; i < kRows * 20; ++i) ASSERT_EQ(std::isnan(outcome.gradient[i]), i / 20 == 1) << Describe(spec) << bad << " at " << i;
      for (uint32_t r = 0; r < kRows; ++r) ASSERT_EQ(std::isnan(outcome.losses[r]), r == 1) << Describe(spec) << bad;
    }
  }
}

// A class that a student rules out costs nothing where the label says 0 too, and without bound where it does not.
TYPED_TEST_P(Kernels, ALogitOfMinusInfinityIsProbabilityZero) {
  const LabelSpec full = MakeSpec(LabelKind::kFull, 4, 0, ValueEncoding::kF32);
  const LabelSpec smooth = MakeSpec(LabelKind::kSmoothing, 4, 1, ValueEncoding::kF32);
  std::vector<float> values, half(kRows, 0.5f);
  for (uint32_t r = 0; r < kRows; ++r) values.insert(values.end(), {0.5f, 0.25f, 0.25f, 0});
  const std::vector<uint32_t> indices(kRows, 0);
  TypeParam::ForEachWay([&] {
    Rows<typename TypeParam::Number> logits(kRows * 4, 0);
    for (uint32_t i = 0; i < kRows * 4; ++i) FromFloat(i % 4 == 3 ? -INFINITY : 1.0f, logits.get() + i);
    auto outcome = this->Loss(SparseLabelsOf(full, nullptr, values.data()), {}, logits, 0);
    auto infinite = this->Loss(SparseLabelsOf(smooth, indices.data(), half.data()), {}, logits, 0);
    for (uint32_t r = 0; r < kRows; ++r) {
      EXPECT_NEAR(outcome.losses[r], std::log(3.0), 1e-6);
      EXPECT_EQ(outcome.gradient[r * 4 + 3], 0);
      EXPECT_EQ(infinite.losses[r], INFINITY);
      EXPECT_NEAR(infinite.gradient[r * 4 + 3], -0.5 / 3, 1e-3);
    }
  });
}

// On the host labels are checked where they come in; on a device nobody can.
TYPED_TEST_P(Kernels, AClassThatIsNoneMakesTheLossNaNAndHarmsNothing) {
  if constexpr (std::is_same_v<TypeParam, test::Cpu<typename TypeParam::Number>>) {
    GTEST_SKIP() << "the CPU's rows trust their labels";
  } else {
    const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 20, 2, ValueEncoding::kF32);
    Labels labels(spec, kRows, 1, this->random_);
    auto logits = this->RandomRows(20, 0);
    labels.indices[3] = 20;
    labels.indices[7] = UINT32_MAX;
    const auto outcome = this->Loss(labels.sparse(), {}, logits, 0);
    for (uint32_t r = 0; r < kRows; ++r) EXPECT_EQ(std::isnan(outcome.losses[r]), r == 1 || r == 3);
    Rows<typename TypeParam::Number> dense(kRows * 20, 0);
    TypeParam::Recover(labels.sparse(), kRows, 1, dense.get());
    EXPECT_TRUE(dense.OutsideIsUntouched());
  }
}

TYPED_TEST_P(Kernels, NoRowsAreNoWork) {
  const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 10, 5);
  TypeParam::Loss(SparseLabelsOf(spec, nullptr, nullptr), 0, {}, nullptr, nullptr, nullptr);
  TypeParam::Recover(SparseLabelsOf(spec, nullptr, nullptr), 0, 1, nullptr);
}

REGISTER_TYPED_TEST_SUITE_P(Kernels, DenseRecoveryEqualsTheFormulasAndTheReference, LossAndGradientEqualFloat64,
                            LossAloneIsTheSame, GradientMayOverwriteTheLogits, MixedLabelsEqualDenseOnesThatWereMixed,
                            EveryClassStoredAndRowsOfEveryLength, LongRows, TheSameBitsAtEveryRun,
                            GradientIsTheSlopeOfTheLoss, TheScaleIsAppliedBeforeRounding, SpikedLogitsStayFinite,
                            ANaNOrInfiniteLogitMakesItsRowNaNAndNoOther, ALogitOfMinusInfinityIsProbabilityZero,
                            AClassThatIsNoneMakesTheLossNaNAndHarmsNothing, NoRowsAreNoWork);

using CpuPlaces = testing::Types<test::Cpu<float>, test::Cpu<Half>, test::Cpu<Bf16>>;
using GpuPlaces = testing::Types<test::Gpu<float>, test::Gpu<Half>, test::Gpu<Bf16>>;
using LanePlaces = testing::Types<test::Lanes<float, 4, 8, true>, test::Lanes<Half, 4, 8, true>, test::Lanes<Bf16, 4, 8, true>,
                                  test::Lanes<float, 32, 32, true>, test::Lanes<Half, 32, 32, true>, test::Lanes<Bf16, 32, 32, true>,
                                  test::Lanes<float, 4, 16, false>, test::Lanes<Half, 4, 16, false>, test::Lanes<Bf16, 4, 16, false>>;
INSTANTIATE_TYPED_TEST_SUITE_P(OnCpu, Kernels, CpuPlaces);
INSTANTIATE_TYPED_TEST_SUITE_P(OnGpu, Kernels, GpuPlaces);
INSTANTIATE_TYPED_TEST_SUITE_P(ByLanes, Kernels, LanePlaces);

TEST(GpuLoss, RefusesToPutTheGradientOfMoreIndicesThanLanesInPlace) {
  if (!HasGpuKernels()) GTEST_SKIP() << "this build has no kernels for GPUs";
  const LabelSpec spec = MakeSpec(LabelKind::kMarginalRenorm, 1000, 769);
  float logits = 0;
  const auto done = gpu::SoftCrossEntropy(SparseLabelsOf(spec, nullptr, nullptr), 1, {}, &logits, &logits, &logits, nullptr);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(done.error().message, "labels of more than 768 indices: their gradient cannot take the logits' place");
}

// What a row of 16 bits gives is what its numbers give as float32, each gradient rounded once: to the bit.
template <class Number>
void ExpectFloat32Rounded() {
  std::mt19937_64 random(6);
  for (const LabelSpec& spec : AllSpecs()) {
    const size_t n = size_t{kRows} * spec.num_classes;
    const Labels labels(spec, kRows, 1, random);
    const std::vector<float> drawn = test::RandomLogits(static_cast<uint32_t>(n), 4, random);
    std::vector<float> widened(n), gradient(n), losses(kRows), losses16(kRows);
    std::vector<Number> logits(n), gradient16(n);
    for (size_t i = 0; i < n; ++i) {
      FromFloat(drawn[i], &logits[i]);
      widened[i] = ToFloat(logits[i]);
    }
    test::ForEachSimdTarget([&] {
      SoftCrossEntropy(labels.sparse(), 0, kRows, {}, widened.data(), losses.data(), gradient.data());
      SoftCrossEntropy(labels.sparse(), 0, kRows, {}, logits.data(), losses16.data(), gradient16.data());
      ASSERT_EQ(losses16, losses) << Describe(spec);
      for (size_t i = 0; i < n; ++i) {
        Number rounded;
        FromFloat(gradient[i], &rounded);
        ASSERT_EQ(gradient16[i].bits, rounded.bits) << Describe(spec);
      }
    });
  }
}
TEST(HostRow, SixteenBitLogitsGiveFloat32RoundedOnce) {
  ExpectFloat32Rounded<Half>();
  ExpectFloat32Rounded<Bf16>();
}

// Every thousandth float from -104 to 0: an error of 2 units in the last place is 2.4e-7 at most.
TEST(HostRow, ExpErrsByLessThanTwoUnitsInTheLastPlace) {
  std::vector<float> z, e;
  for (float x = 0; x > -104; x = std::bit_cast<float>(std::bit_cast<uint32_t>(x) + (x > -1e-3f ? 1000003u : 1009u))) {
    z.push_back(x == 0 ? -1e-12f : x);
    x = z.back();
  }
  e.resize(z.size());
  test::ForEachSimdTarget([&] {
    double worst = 0;
    HostRow::SumExp(z.data(), static_cast<uint32_t>(z.size()), 0, 1, e.data());
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

TEST(HostRow, SixteenBitRowsRoundAsOneNumberDoes) {
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
    RowToHalf(all.data(), all.size(), rounded.data());
    RowFromHalf(rounded.data(), rounded.size(), back.data());
    for (size_t i = 0; i < all.size(); ++i) {
      if (std::isnan(all[i])) {
        ASSERT_TRUE(std::isnan(back[i]) && std::isnan(FloatFromHalf(rounded[i])));
        continue;
      }
      ASSERT_EQ(rounded[i], HalfFromFloat(all[i])) << all[i];
      ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), std::bit_cast<uint32_t>(FloatFromHalf(rounded[i])));
    }
  });
}

}  // namespace
}  // namespace fkdb
