// SPDX-License-Identifier: Apache-2.0
// Batches on their way to a GPU, whatever the order in which it works: here one that is none and does everything as late,
// or as early, as it may.
#include <gtest/gtest.h>

#include <cstring>
#include <optional>

#include "tests/cuda/lazy_gpu.h"
#include "tests/format/test_labels.h"
#include "tests/trainer/made_up.h"
#include "trainer/gpu_feed.h"
#include "trainer/supervision.h"

namespace fkdb {
namespace {

using test::LazyGpu;
using test::MadeUp;
using test::MadeUpPhotos;

const InputSpec kInput = {8, 8, Interpolation::kBilinear, {0.5}, {0.5}};

std::unique_ptr<BatchLoader> Open(const DataSet& data, const Supervision& supervision, const InputSpec& input, BatchMemory memory = {},
                                  bool crop = true) {
  // 3 images a step, then 6 of one crop: later batches are larger and smaller than earlier ones.
  const std::vector<Pass> passes = {{0, 2}, {2, 1}, {3, 4}};
  return std::move(*BatchLoader::Make(data, supervision, {.input = input, .passes = passes, .batch_size = 6, .seed = 1, .workers = 2,
                                                              .memory = std::move(memory), .crop = crop, .expand = crop}));
}

// What is read of a batch.
struct Seen {
  std::vector<float> inputs;
  std::vector<std::byte> indices;
  bool operator==(const Seen&) const = default;
};

// A feed gives what its loader gives, whatever is early or late; also where it makes the crops.
void CheckFeed(const DataSet& data, const InputSpec& input, bool crop_on_gpu) {
  const auto supervision = HardSupervision(data, {}, 1);
  std::vector<Seen> expected;
  const auto plain = Open(data, **supervision, input);
  while (const TrainBatch* batch = *plain->Next()) {
    expected.push_back({test::InputsOf(*batch), {}});
    const auto labels = batch->labels.label_bytes();
    expected.back().indices.assign(labels.begin(), labels.begin() + static_cast<ptrdiff_t>(batch->labels.size() * 2));
  }
  ASSERT_GT(expected.size(), 20u);

  for (const bool early : {false, true}) {
    for (const bool prefetch : {false, true}) {
      SCOPED_TRACE(testing::Message() << (early ? "copies early" : "copies late") << (prefetch ? ", ahead" : ""));
      LazyGpu::MakeStreamsEarly(false);
      const OwnedStream compute = *MakeStream();
      LazyGpu::MakeStreamsEarly(early);
      const auto loader = Open(data, **supervision, input, GpuFeed::Memory(0), !crop_on_gpu);
      std::optional<CropFormat> crops;
      if (crop_on_gpu) crops = *GpuFeed::FormatOf(input);
      auto feed = *GpuFeed::Make(loader.get(), crops);
      std::vector<Seen> seen;
      seen.reserve(expected.size());
      for (;;) {
        const auto batch = feed.Next(compute.get());
        ASSERT_TRUE(batch) << batch.error().message;
        if (*batch == nullptr) break;
        ASSERT_LT(seen.size(), expected.size());
        EXPECT_EQ((*batch)->host->inputs.empty(), crop_on_gpu);
        EXPECT_EQ((*batch)->host->arrays.indices.empty(), crop_on_gpu);
        seen.push_back({std::vector<float>(expected[seen.size()].inputs.size()), std::vector<std::byte>((*batch)->host->labels.size() * 2)});
        LazyGpu::Enqueue(compute.get(), [to = &seen.back(), from = **batch] {
          LazyGpu::Use(from.inputs);
          LazyGpu::Use(from.indices);
          std::memcpy(to->inputs.data(), from.inputs, to->inputs.size() * sizeof(float));
          std::memcpy(to->indices.data(), from.indices, to->indices.size());
        });
        if (prefetch) feed.Prefetch();
      }
      ASSERT_TRUE(Wait(compute.get()));
      EXPECT_EQ(seen.size(), expected.size());
      for (size_t i = 0; i < seen.size(); ++i) EXPECT_TRUE(seen[i] == expected[i]) << "batch " << i;
      EXPECT_EQ(*feed.Next(compute.get()), nullptr);
    }
  }
  EXPECT_EQ(LazyGpu::LateUses(), 0u);
}

TEST(GpuFeed, EveryBatchIsThereWhenItsWorkIsDone) { CheckFeed(MadeUp(23), kInput, false); }

TEST(GpuFeed, CropsOfDecodedRegionsAreTheLoadersInBits) {
  CheckFeed(MadeUp(23), kInput, true);
  const Normalization n = DefaultNormalization(3);
  CheckFeed(MadeUpPhotos(23), {17, 12, Interpolation::kBicubic, n.mean, n.std}, true);
}

TEST(GpuFeed, AConventionThatItsKernelsDoNotHaveIsRefused) {
  InputSpec input = kInput;
  input.pass_order = PassOrder::kAsPillow13;
  EXPECT_EQ(GpuFeed::FormatOf(input).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(GpuFeed::FormatOf(input).error().message,
            "crops resampled as 'pillow-integer-13' are not made on a GPU, only 'pillow-integer-horizontal-first' ones: leave them to the CPU");
}

TEST(GpuFeed, ALoadersErrorComesInItsPlace) {
  const MadeUp data(12, [](uint64_t ordinal) -> Result<void> {
    if (ordinal == 7) return Fail(ErrorCode::kCorruption, "image 7 is broken");
    return {};
  });
  const auto supervision = HardSupervision(data, {}, 1);
  LazyGpu::MakeStreamsEarly(false);
  const auto loader = std::move(*BatchLoader::Make(data, **supervision, {.input = kInput, .passes = {{0, 1}}, .batch_size = 1, .seed = 1, .workers = 2,
                                                                         .memory = GpuFeed::Memory(0)}));
  auto feed = *GpuFeed::Make(loader.get());
  int batches = 0;
  for (;;) {
    const auto batch = feed.Next(nullptr);
    if (!batch) {
      EXPECT_EQ(batch.error().message, "image 7 is broken");
      break;
    }
    ASSERT_NE(*batch, nullptr);
    ++batches;
    feed.Prefetch();
  }
  EXPECT_LT(batches, 12);
  const auto after = feed.Next(nullptr);
  EXPECT_TRUE(after && *after == nullptr);
}

// What the labels of a batch of 1024 crops cost the bus, without boxes.
TEST(GpuFeed, LabelsOfFiveClassesAreFourteenBytesACrop) {
  LabelBatch batch;
  batch.Resize(test::MakeSpec(LabelKind::kMarginalSmoothing, 1000, 5, ValueEncoding::kPacked), 256, 1024);
  EXPECT_GE(batch.label_bytes().size(), 14u * 1024);
  EXPECT_LE(batch.label_bytes().size(), 14u * 1024 + 128);
}

}  // namespace
}  // namespace fkdb
