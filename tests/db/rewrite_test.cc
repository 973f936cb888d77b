// SPDX-License-Identifier: Apache-2.0
#include "db/rewrite.h"

#include <algorithm>

#include "db/label_file.h"
#include "format/recode.h"
#include "format/recover.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
using test::LabelSet;
using test::MakeSpec;

// Every n-th image of `set` from `first`.
LabelSet Shard(const LabelSet& set, size_t first, size_t step) {
  LabelSet shard = set;
  shard.keys.clear();
  shard.records.clear();
  for (size_t i = first; i < set.keys.size(); i += step) {
    shard.keys.push_back(set.keys[i]);
    shard.records.push_back(set.records[i]);
  }
  shard.recipe.data_set.num_images = shard.keys.size();
  shard.recipe.data_set.key_list_sha256 = Sha256OfKeys(shard.keys);
  return shard;
}

class RewriteTest : public test::TempFolder {};

// Shards of any cut, merged in any order, are the label set built in one go.
TEST_F(RewriteTest, MergedShardsHaveTheDigestOfOneBuild) {
  for (const ValueEncoding values : {ValueEncoding::kF16, ValueEncoding::kPacked}) {
    const LabelSet set(300, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, values));
    LabelFileWriterOptions overwrite;
    overwrite.overwrite = true;
    const std::string digest = set.Build(Path("whole.fkdb"), overwrite)->digest;
    std::vector<fs::path> shards;
    for (size_t i = 0; i < 3; ++i) {
      shards.push_back(Path("shard" + std::to_string(i) + ".fkdb"));
      ASSERT_TRUE(Shard(set, i, 3).Build(shards.back(), overwrite));
    }
    std::swap(shards[0], shards[2]);
    RewriteOptions options;
    options.file.overwrite = true;
    const auto merged = MergeLabelSets(shards, Path("merged.fkdb"), options);
    ASSERT_TRUE(merged) << merged.error().message;
    EXPECT_EQ(merged->digest, digest);
    EXPECT_EQ(merged->num_images, 300u);
  }
}

TEST_F(RewriteTest, AMergeIsResumed) {
  const LabelSet set(300);
  const std::string digest = set.Build(Path("whole.fkdb"))->digest;
  const fs::path shards[] = {Path("a.fkdb"), Path("b.fkdb")};
  ASSERT_TRUE(Shard(set, 0, 2).Build(shards[0]) && Shard(set, 1, 2).Build(shards[1]));
  std::atomic<bool> stop = true;
  RewriteOptions options;
  options.stop = &stop;
  EXPECT_EQ(MergeLabelSets(shards, Path("m.fkdb"), options).error().code, ErrorCode::kIncomplete);
  stop = false;
  options.progress = [&](uint64_t done, uint64_t) { stop = done >= 100; };
  options.file.resume = true;
  EXPECT_EQ(MergeLabelSets(shards, Path("m.fkdb"), options).error().code, ErrorCode::kIncomplete);
  options.stop = nullptr;
  EXPECT_EQ(MergeLabelSets(shards, Path("m.fkdb"), options)->digest, digest);
}

TEST_F(RewriteTest, WhatIsNotOneLabelSetIsRefusedByName) {
  const LabelSet set(20);
  ASSERT_TRUE(Shard(set, 0, 2).Build(Path("a.fkdb")));
  const auto refused = [&](LabelSet other) {
    LabelFileWriterOptions overwrite;
    overwrite.overwrite = true;
    EXPECT_TRUE(other.Build(Path("b.fkdb"), overwrite));
    const fs::path inputs[] = {Path("a.fkdb"), Path("b.fkdb")};
    const auto merged = MergeLabelSets(inputs, Path("m.fkdb"), {});
    EXPECT_FALSE(merged);
    EXPECT_EQ(merged.error().code, ErrorCode::kMismatch);
    EXPECT_FALSE(fs::exists(Path("m.fkdb")) || fs::exists(Path("m.fkdb.partial")));
    return merged.error().message;
  };
  const std::string files = Path("a.fkdb").string() + " and " + Path("b.fkdb").string();
  LabelSet other = Shard(set, 1, 2);
  other.recipe.augmentation.seed = 9;
  EXPECT_EQ(refused(other), files + " are not parts of one label set: augmentation.seed: 0 in the first, 9 in the second");
  other = Shard(set, 1, 2);
  other.recipe.data_set.class_names[3] = "other";
  EXPECT_EQ(refused(other), files + " are not parts of one label set: data_set.class_names[3]: \"class3\" in the first, "
                                    "\"other\" in the second");
  EXPECT_EQ(refused(LabelSet(20, MakeSpec(LabelKind::kMarginalSmoothing, 10, 4))),
            files + " are not parts of one label set: labels.top_k: 5 in the first, 4 in the second");
  EXPECT_EQ(refused(Shard(set, 0, 5)), "image '00000.jpg' is in both " + Path("a.fkdb").string() + " and " +
                                           Path("b.fkdb").string());
}

TEST_F(RewriteTest, ASubsetHoldsTheChosenImagesAndCrops) {
  for (const ValueEncoding values : test::kAllValues) {
    const LabelSet set(60, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, values), 6);
    LabelFileWriterOptions overwrite;
    overwrite.overwrite = true;
    ASSERT_TRUE(set.Build(Path("all.fkdb"), overwrite));
    SubsetOptions options;
    options.file = overwrite;
    options.images = {set.keys[40], set.keys[7]};
    options.crops = 2;
    const auto made = SubsetLabelSet(Path("all.fkdb"), Path("some.fkdb"), options);
    ASSERT_TRUE(made) << made.error().message;
    EXPECT_EQ(made->num_images, 2u);
    EXPECT_EQ(made->num_crops, 4u);
    EXPECT_EQ(made->augmentation.crops, 2u);
    const auto all = LabelFile::Open(Path("all.fkdb")), some = LabelFile::Open(Path("some.fkdb"));
    for (const auto& [from, to] : {std::pair{7u, 0u}, {40u, 1u}}) {
      const Record a = DecodeRecord(*RecordView::Open(*all->RecordBytes(from), set.recipe.spec));
      const Record b = DecodeRecord(*RecordView::Open(*some->RecordBytes(to), set.recipe.spec));
      const Record first = FirstCrops(set.recipe.spec, a, 2);
      EXPECT_EQ(first.pixel_boxes, b.pixel_boxes);
      EXPECT_EQ(first.flips, b.flips);
      EXPECT_EQ(first.indices, b.indices);
      EXPECT_EQ(first.values, b.values) << Name(values) << ": encoding a second time changed the labels";
      EXPECT_EQ(first.key_hash, b.key_hash);
    }
    options.images = {set.keys[7], "no.jpg"};
    EXPECT_EQ(SubsetLabelSet(Path("all.fkdb"), Path("some.fkdb"), options).error().code, ErrorCode::kNotFound);
    options.images = {set.keys[7], set.keys[7]};
    EXPECT_EQ(SubsetLabelSet(Path("all.fkdb"), Path("some.fkdb"), options).error().message,
              "image '00007.jpg' is named twice");
  }
}

// full -> marginal smoothing -> hard by the tool is what a teacher labelled so would have given.
TEST_F(RewriteTest, RecodedLabelsAreThoseOfADirectBuild) {
  const LabelSet full(30, MakeSpec(LabelKind::kFull, 10, 0, ValueEncoding::kF32));
  ASSERT_TRUE(full.Build(Path("full.fkdb")));
  const auto direct = [&](const LabelSpec& spec) {
    LabelSet set = full;
    set.recipe.spec = spec;
    for (Record& record : set.records) record = RecodeRecord(full.recipe.spec, spec, record);
    LabelFileWriterOptions overwrite;
    overwrite.overwrite = true;
    return set.Build(Path("direct.fkdb"), overwrite)->digest;
  };
  const auto recoded = [&](const char* from, const char* to, const char* recode) {
    SubsetOptions options;
    options.file.overwrite = true;
    options.recode = recode;
    const auto made = SubsetLabelSet(Path(from), Path(to), options);
    EXPECT_TRUE(made) << made.error().message;
    return made ? made->digest : "";
  };
  const auto spec = [](LabelKind kind, uint32_t k, ValueEncoding values) { return MakeSpec(kind, 10, k, values); };
  EXPECT_EQ(recoded("full.fkdb", "ms.fkdb", "marginal-smoothing,top-k=5"),
            direct(spec(LabelKind::kMarginalSmoothing, 5, ValueEncoding::kF32)));
  EXPECT_EQ(recoded("ms.fkdb", "ms3.fkdb", "top-k=3,f16"),
            direct(spec(LabelKind::kMarginalSmoothing, 3, ValueEncoding::kF16)));
  EXPECT_EQ(recoded("ms.fkdb", "packed.fkdb", "packed"),
            direct(spec(LabelKind::kMarginalSmoothing, 5, ValueEncoding::kPacked)));
  EXPECT_EQ(recoded("ms.fkdb", "renorm.fkdb", "marginal-renorm"),
            direct(spec(LabelKind::kMarginalRenorm, 5, ValueEncoding::kF32)));
  EXPECT_EQ(recoded("packed.fkdb", "hard.fkdb", "hard"), direct(spec(LabelKind::kHard, 1, ValueEncoding::kPacked)));

  const auto refused = [&](const char* from, const char* recode) {
    SubsetOptions options;
    options.recode = recode;
    return SubsetLabelSet(Path(from), Path("no.fkdb"), options).error().message;
  };
  EXPECT_EQ(refused("ms3.fkdb", "top-k=5"),
            "marginal-smoothing of 5 (f16) labels cannot be derived from marginal-smoothing of 3 (f16) labels: they do not hold enough");
  EXPECT_EQ(refused("hard.fkdb", "full"), "full (packed) labels cannot be derived from hard (packed) labels: they do not hold enough");
  EXPECT_EQ(refused("full.fkdb", "marginal-smoothing"), "recode 'marginal-smoothing': full labels have no K: add top-k=K");
  EXPECT_EQ(refused("ms.fkdb", "f16,f32"), "recode 'f16,f32': 'f32' is not a kind, an encoding or top-k=K, or comes twice");
}

}  // namespace
}  // namespace fkdb
