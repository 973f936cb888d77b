// SPDX-License-Identifier: Apache-2.0
#include "db/rewrite.h"

#include <algorithm>

#include "db/collection.h"
#include "db/label_set.h"
#include "format/recode.h"
#include "format/recover.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
using test::RandomLabels;
using test::MakeSpec;

// Every n-th image of `set` from `first`.
RandomLabels Shard(const RandomLabels& set, size_t first, size_t step) {
  RandomLabels shard = set;
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
    const RandomLabels set(300, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, values));
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
  const RandomLabels set(300);
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
  const RandomLabels set(20);
  ASSERT_TRUE(Shard(set, 0, 2).Build(Path("a.fkdb")));
  const auto refused = [&](RandomLabels other) {
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
  RandomLabels other = Shard(set, 1, 2);
  other.recipe.augmentation.seed = 9;
  EXPECT_EQ(refused(other), files + " are not parts of one label set: augmentation.seed: 0 in the first, 9 in the second");
  other = Shard(set, 1, 2);
  other.recipe.data_set.class_names[3] = "other";
  EXPECT_EQ(refused(other), files + " are not parts of one label set: data_set.class_names[3]: \"class3\" in the first, "
                                    "\"other\" in the second");
  EXPECT_EQ(refused(RandomLabels(20, MakeSpec(LabelKind::kMarginalSmoothing, 10, 4))),
            files + " are not parts of one label set: labels.top_k: 5 in the first, 4 in the second");
  EXPECT_EQ(refused(Shard(set, 0, 5)), "image '00000.jpg' is in both " + Path("a.fkdb").string() + " and " +
                                           Path("b.fkdb").string());
}

// The index file of a collection, over shards of any cut, reads as the label set built in one go.
TEST_F(RewriteTest, ACollectionIsTheLabelSetOfItsShards) {
  const RandomLabels set(300, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, ValueEncoding::kPacked));
  const std::string digest = set.Build(Path("whole.fkdb"))->digest;
  const auto whole = LabelSet::Open(Path("whole.fkdb"));
  fs::create_directory(Path("shards"));
  for (const size_t shards : {1u, 2u, 7u}) {
    std::vector<fs::path> parts;
    for (size_t i = 0; i < shards; ++i) {
      parts.push_back(Path("shards/" + std::to_string(shards) + "." + std::to_string(i) + ".fkdb"));
      ASSERT_TRUE(Shard(set, i, shards).Build(parts.back()));
    }
    const fs::path out = Path("all" + std::to_string(shards) + ".fkdb");
    const auto made = CollectLabelSets(parts, out, {});
    ASSERT_TRUE(made) << made.error().message;
    EXPECT_EQ(made->digest, digest);
    EXPECT_EQ(made->num_images, 300u);
    EXPECT_EQ(made->num_crops, 1200u);
    const auto all = LabelSet::Open(out);
    ASSERT_TRUE(all) << all.error().message;
    EXPECT_TRUE(all->is_collection());
    EXPECT_EQ(ToJson(all->manifest()), ToJson(*made));
    EXPECT_EQ(*all->AllKeys(), set.keys);
    for (uint64_t i = 0; i < 300; ++i) {
      const auto a = *all->RecordBytes(i), b = *whole->RecordBytes(i);
      EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << i;
      EXPECT_EQ(*all->Find(set.keys[i]), i);
      EXPECT_EQ(**all->Key(i), set.keys[i]);
    }
    EXPECT_EQ(all->Find("no.jpg").error().message, out.string() + ": no image 'no.jpg' in it");
    EXPECT_EQ(all->RecordBytes(300).error().message, out.string() + ": no image 300: the label set has 300 (counted from 0)");
    const FileUse use = *all->Use();
    uint64_t bytes = fs::file_size(out);
    for (const fs::path& part : parts) bytes += fs::file_size(part);
    EXPECT_EQ(use.file_bytes, bytes);
    EXPECT_EQ(use.record_bytes + use.directory_bytes + use.names_bytes + use.manifest_bytes + use.lmdb_bytes + use.waste_bytes,
              bytes);
    // A folder of shards and index goes anywhere together; a collection is a part like any other.
    RewriteOptions options;
    EXPECT_EQ(MergeLabelSets({&out, 1}, Path("merged" + std::to_string(shards) + ".fkdb"), options)->digest, digest);
    const auto nested = CollectLabelSets({&out, 1}, Path("shards/nested" + std::to_string(shards) + ".fkdb"), options);
    EXPECT_EQ(nested->digest, digest);
  }
  fs::rename(Path("shards"), Path("moved"));
  const auto moved = LabelSet::Open(Path("moved/nested7.fkdb"));
  ASSERT_TRUE(moved) << moved.error().message;
  EXPECT_EQ(moved->files().size(), 7u);
  EXPECT_EQ(*moved->AllKeys(), set.keys);
  EXPECT_EQ(LabelSet::Open(Path("all7.fkdb")).error().message,
            Path("all7.fkdb").string() + ": " + Path("shards/7.0.fkdb").string() + ": no such file");
  const fs::path mixed[] = {Path("moved/2.0.fkdb"), Path("moved/nested2.fkdb")};
  EXPECT_EQ(CollectLabelSets(mixed, Path("no.fkdb"), {}).error().code, ErrorCode::kMismatch);
  EXPECT_FALSE(fs::exists(Path("no.fkdb")) || fs::exists(Path("no.fkdb.partial")) || fs::exists(Path("no.fkdb.lock")));
}

TEST_F(RewriteTest, ACollectionKnowsItsShards) {
  const RandomLabels set(40);
  const fs::path parts[] = {Path("0.fkdb"), Path("1.fkdb")}, out = Path("all.fkdb");
  for (size_t i = 0; i < 2; ++i) ASSERT_TRUE(Shard(set, i, 2).Build(parts[i]));
  ASSERT_TRUE(CollectLabelSets(parts, out, {}));
  EXPECT_EQ(CollectLabelSets(parts, out, {}).error().code, ErrorCode::kAlreadyExists);

  LabelFileWriterOptions overwrite;
  overwrite.overwrite = true;
  const std::string digest = LabelFile::Open(parts[1])->manifest().digest;
  const std::string other = RandomLabels(20, set.recipe.spec, 4, /*seed=*/9).Build(parts[1], overwrite)->digest;
  auto opened = LabelSet::Open(out);
  EXPECT_EQ(opened.error().code, ErrorCode::kCorruption);
  EXPECT_EQ(opened.error().message, out.string() + ": " + parts[1].string() + ": not the shard this collection was made of: " +
                                        other + ", expected " + digest + "; fkdb-merge --collection makes the index anew");
  // The digest does not cover the recipe.
  RandomLabels seeded = Shard(set, 1, 2);
  seeded.recipe.augmentation.seed = 5;
  ASSERT_EQ(seeded.Build(parts[1], overwrite)->digest, digest);
  EXPECT_EQ(LabelSet::Open(out).error().message,
            out.string() + ": " + parts[1].string() + ": not the shard this collection was made of: augmentation.seed: 5 in the "
                           "shard, 0 in the index; fkdb-merge --collection makes the index anew");
  ASSERT_TRUE(Shard(set, 1, 2).Build(parts[1], overwrite));
  EXPECT_TRUE(LabelSet::Open(out));
}

// Whatever happens to an index file: refused, never other labels.
TEST_F(RewriteTest, EveryByteOfAnIndexFileCounts) {
  const RandomLabels set(40);
  const fs::path parts[] = {Path("0.fkdb"), Path("1.fkdb")}, out = Path("all.fkdb");
  for (size_t i = 0; i < 2; ++i) ASSERT_TRUE(Shard(set, i, 2).Build(parts[i]));
  ASSERT_TRUE(CollectLabelSets(parts, out, {}));
  const std::string good = test::ReadBytes(out);
  const auto refused = [&](const std::string& text) {
    test::WriteBytes(out, text);
    const auto opened = LabelSet::Open(out);
    return !opened && opened.error().code == ErrorCode::kCorruption;
  };
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    for (const char flip : {1, 32, 127}) {
      bad[i] = static_cast<char>(good[i] ^ flip);
      EXPECT_TRUE(refused(bad)) << "byte " << i;
    }
    EXPECT_TRUE(refused(good.substr(0, i))) << i << " bytes";
  }
  EXPECT_TRUE(refused(good + "\n"));

  // What a checksum does not catch: an index that was made wrong.
  const auto index = ParseIndexText(good);
  ASSERT_TRUE(index);
  EXPECT_EQ(ToIndexText(*index), good);
  const auto error = [&](auto spoil) {
    CollectionIndex bad = *index;
    spoil(bad);
    const auto parsed = ParseIndexText(ToIndexText(bad));
    return parsed ? "accepted" : parsed.error().message;
  };
  EXPECT_EQ(error([](auto& bad) { bad.order.pop_back(); }),
            "collection: shard '1.fkdb' has 20 images, field 'order' takes 19");
  EXPECT_EQ(error([](auto& bad) { bad.order[0].shard = 2; }), "collection: field 'order' is not a list of (shard, images)");
  EXPECT_EQ(error([](auto& bad) { bad.order.push_back({0, 0}); }), "collection: field 'order' is not a list of (shard, images)");
  EXPECT_EQ(error([](auto& bad) { bad.shards.clear(); }), "collection: field 'shards' is not a list of label files");
  EXPECT_EQ(error([](auto& bad) { bad.shards[1].file.clear(); }), "collection: field 'shards[1].file' is empty");
  EXPECT_EQ(error([](auto& bad) { ++bad.manifest.num_images; }), "collection: 40 images in the shards, 41 in the manifest");
  CollectionIndex swapped = *index;
  std::swap(swapped.order.front(), swapped.order.back());
  test::WriteBytes(out, ToIndexText(swapped));
  EXPECT_EQ(LabelSet::Open(out)->AllKeys().error().message,
            out.string() + ": collection: image '00000.jpg' comes after '00003.jpg'");
}

TEST_F(RewriteTest, ASubsetHoldsTheChosenImagesAndCrops) {
  for (const ValueEncoding values : test::kAllValues) {
    const RandomLabels set(60, MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, values), 6);
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
      const Record a = *DecodeRecord(*RecordView::Open(*all->RecordBytes(from), set.recipe.spec));
      const Record b = *DecodeRecord(*RecordView::Open(*some->RecordBytes(to), set.recipe.spec));
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
TEST_F(RewriteTest, ASubsetSaysWhereItsBoxesAndLabelsCameFrom) {
  test::RandomLabels set(5);
  set.recipe.boxes_from = "sha256:1";
  set.recipe.averaged = {{"sha256:2", 1}, {"sha256:3", 0.5}};
  ASSERT_TRUE(set.Build(Path("whole.fkdb")));
  const auto part = SubsetLabelSet(Path("whole.fkdb"), Path("part.fkdb"), [] {
    SubsetOptions options;
    options.crops = 2;
    return options;
  }());
  ASSERT_TRUE(part) << part.error().message;
  EXPECT_EQ(part->boxes_from, "sha256:1");
  EXPECT_EQ(part->averaged, set.recipe.averaged);
}

TEST_F(RewriteTest, RecodedLabelsAreThoseOfADirectBuild) {
  const RandomLabels full(30, MakeSpec(LabelKind::kFull, 10, 0, ValueEncoding::kF32));
  ASSERT_TRUE(full.Build(Path("full.fkdb")));
  const auto direct = [&](const LabelSpec& spec) {
    RandomLabels set = full;
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
