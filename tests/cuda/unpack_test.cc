// SPDX-License-Identifier: Apache-2.0
// Compact labels to arrays: the bits that the record's view gives, on CPU and GPU.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "cuda/unpack.h"
#include "cuda/unpack_kernels.h"
#include "format/bits.h"
#include "format/compact.h"
#include "tests/cuda/places.h"
#include "tests/cuda/stored_labels.h"

namespace fkdb {
namespace {

using test::AllSpecs;
using test::Describe;
using test::MakeSpec;

// A batch's labels as it holds them, and what its records say of them.
struct Batch {
  LabelSpec spec;
  uint32_t rows;
  std::vector<std::byte> indices, values;  // compact
  std::vector<uint32_t> expected_indices;
  std::vector<float> expected_values;

  Batch(const LabelSpec& s, uint32_t count, std::mt19937_64& random)
      : spec(s),
        rows(count),
        indices(count * CompactIndexBytes(s)),
        values(count * CompactValueBytes(s) + kBitPadding),
        expected_indices(size_t{count} * s.num_indices()),
        expected_values(size_t{count} * s.num_values()) {
    const auto bytes = EncodeRecord(spec, test::RandomRecord(spec, rows, random));
    const auto view = RecordView::Open(*bytes, spec);
    for (uint32_t r = 0; r < rows; ++r) {
      PixelBox box;
      EXPECT_TRUE(view->ReadCompactCrop(r, &box, indices.data() + r * CompactIndexBytes(spec), values.data() + r * CompactValueBytes(spec)));
      EXPECT_EQ(box, view->pixel_box(r));
      view->CopyIndices(r, expected_indices.data() + r * spec.num_indices());
      view->CopyValues(r, expected_values.data() + r * spec.num_values());
    }
  }

  // unpack(indices, values, rows, out_indices, out_values) gives what is expected and writes no more.
  template <class Unpack>
  void Expect(Unpack unpack) const {
    std::vector<uint32_t> found_indices(expected_indices.size() + 1, 77);
    std::vector<float> found_values(expected_values.size() + 1, 77);
    unpack(found_indices, found_values);
    ASSERT_TRUE(found_indices.back() == 77 && found_values.back() == 77) << "wrote behind the end";
    found_indices.pop_back();
    ASSERT_EQ(found_indices, expected_indices) << Describe(spec);
    if (expected_values.empty()) return;
    ASSERT_EQ(std::memcmp(found_values.data(), expected_values.data(), expected_values.size() * sizeof(float)), 0) << Describe(spec);
  }
};

// Ratios so steep that the last values would be 0: every code at its last.
Batch SteepestBatch() {
  std::mt19937_64 random(1);
  Batch batch(MakeSpec(LabelKind::kMarginalSmoothing, 1000, 10, ValueEncoding::kPacked), 2, random);
  std::fill(batch.values.begin(), batch.values.end() - kBitPadding, std::byte{0xff});
  ExpandValues(batch.spec, batch.values.data(), batch.rows, batch.expected_values.data());
  EXPECT_EQ(batch.expected_values.back(), 0x1p-126f);
  return batch;
}

template <class Body>
void ForEachBatch(Body body) {
  std::mt19937_64 random(8);
  std::vector<LabelSpec> specs = AllSpecs();
  for (const uint32_t k : {1u, 2u, 5u, 10u, 11u, 12u, 13u, 40u}) {
    for (const LabelKind kind : {LabelKind::kMarginalSmoothing, LabelKind::kMarginalRenorm}) {
      specs.push_back(MakeSpec(kind, k == 40 ? 70000 : 50, k, ValueEncoding::kPacked));
    }
  }
  specs.push_back(MakeSpec(LabelKind::kLogits, 37, 0, ValueEncoding::kBf16));
  for (const LabelSpec& spec : specs) {
    for (const uint32_t rows : {1u, 7u, 37u}) body(Batch(spec, rows, random));
  }
  body(Batch(MakeSpec(LabelKind::kMarginalSmoothing, 1000, 5, ValueEncoding::kPacked), 1000, random));
  body(SteepestBatch());
}

TEST(Unpack, GivesTheBitsOfTheRecord) {
  ForEachBatch([](const Batch& batch) {
    test::ForEachSimdTarget([&] {
      batch.Expect([&](std::vector<uint32_t>& indices, std::vector<float>& values) {
        UnpackLabels(batch.spec, batch.indices.data(), batch.values.data(), batch.rows, indices.data(), values.data());
      });
    });
  });
}

// The body of the GPU's kernel for what fits a word, by the CPU.
TEST(Unpack, AWordGivesTheBitsOfTheRecord) {
  int batches = 0;
  ForEachBatch([&](const Batch& batch) {
    const LabelSpec& spec = batch.spec;
    if (!spec.packed() || spec.num_indices() == 0 || spec.num_values() == 0 || spec.top_k > kMostWordValues) return;
    ++batches;
    batch.Expect([&](std::vector<uint32_t>& indices, std::vector<float>& values) {
      indices = batch.expected_indices;
      indices.push_back(77);
      for (uint32_t r = 0; r < batch.rows; ++r) {
        uint64_t word;
        std::memcpy(&word, batch.values.data() + r * CompactValueBytes(spec), sizeof word);
        UnpackWord(word, spec.top_k, spec.has_tail(), kTailLevels.data(), kRatioLevels.data(), values.data() + r * spec.top_k);
      }
    });
  });
  EXPECT_GT(batches, 30);
}

TEST(Unpack, OnTheGpuGivesTheBitsOfTheRecord) {
  FKDB_END_WITHOUT_GPU("the kernel's body runs on the CPU");
  ForEachBatch([](const Batch& batch) {
    batch.Expect([&](std::vector<uint32_t>& indices, std::vector<float>& values) {
      const test::OnGpu<const std::byte> compact_indices{std::span(batch.indices)}, compact_values{std::span(batch.values)};
      const test::OnGpu<uint32_t> to_indices{std::span(indices)};
      const test::OnGpu<float> to_values{std::span(values)};
      const auto done = gpu::UnpackLabels(batch.spec, compact_indices.get(), compact_values.get(), batch.rows, to_indices.get(),
                                          to_values.get(), nullptr);
      ASSERT_TRUE(done) << done.error().message;
      to_indices.Back();
      to_values.Back();
    });
  });
}

TEST(Unpack, FourteenBytesACropAtKFive) {
  const LabelSpec spec = MakeSpec(LabelKind::kMarginalSmoothing, 1000, 5, ValueEncoding::kPacked);
  EXPECT_EQ(CompactIndexBytes(spec) + CompactValueBytes(spec), 14u);
}

}  // namespace
}  // namespace fkdb
