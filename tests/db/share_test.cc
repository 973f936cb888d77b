// SPDX-License-Identifier: Apache-2.0
#include "db/share/share.h"

#include <algorithm>

#include "db/label_set.h"
#include "db/rewrite.h"
#include "db/share/chunk.h"
#include "db/share/shard.h"
#include "format/crop_sampler.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
using test::MakeMapSpec;
using test::MakeSpec;
using test::RandomLabels;
using test::ReadBytes;
using test::WriteBytes;

// With the boxes and flips that the recipe stands for.
RandomLabels Drawn(RandomLabels set) {
  const auto sampler = CropSampler::Make({});
  for (Record& record : set.records) {
    for (uint32_t i = 0; i < record.num_crops(); ++i) {
      const SampledCrop crop = sampler->Sample(set.recipe.augmentation.seed, record.key_hash, i, record.width, record.height);
      record.pixel_boxes[i] = crop.box;
      record.flips[i] = crop.flip;
    }
  }
  return set;
}

class ShareTest : public test::TempFolder {
 protected:
  // Packs `db` to `share`, a shard a group.
  PackReport Pack(const std::string& db = "db.fkdb", const std::string& share = "share", int threads = 2) {
    PackOptions options;
    options.threads = threads;
    options.shard_bytes = 1;
    auto packed = PackLabelSet(Path(db), Path(share), options);
    EXPECT_TRUE(packed) << packed.error().message;
    return packed ? *std::move(packed) : PackReport{};
  }
  Result<ShareManifest> Verify(bool deep, int threads = 2) {
    VerifyShareOptions options;
    options.deep = deep;
    options.threads = threads;
    return VerifyShare(Path("share"), options);
  }
  std::string VerifyError(bool deep = false) {
    const auto verified = Verify(deep);
    if (verified) return "";
    EXPECT_EQ(verified.error().code, ErrorCode::kCorruption) << verified.error().message;
    return verified.error().message;
  }
  Result<Manifest> Unpack(UnpackOptions options = {}, const std::string& out = "out.fkdb") {
    options.file.overwrite = true;
    if (options.threads == 1) options.threads = 2;
    return UnpackShare(Path("share"), Path(out), options);
  }
  void ExpectSameRecords(const std::string& a, const std::string& b) {
    const auto first = LabelSet::Open(Path(a)), second = LabelSet::Open(Path(b));
    ASSERT_TRUE(first && second);
    ASSERT_EQ(*first->AllKeys(), *second->AllKeys());
    for (uint64_t i = 0; i < first->num_images(); ++i) {
      const auto x = *first->RecordBytes(i), y = *second->RecordBytes(i);
      ASSERT_TRUE(std::ranges::equal(x, y)) << i;
    }
  }
  fs::path ManifestPath() { return Path("share") / kShareManifestName; }
  // Replaces the first `from` in the manifest.
  void Edit(const std::string& from, const std::string& to) {
    std::string text = ReadBytes(ManifestPath());
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    WriteBytes(ManifestPath(), text.replace(at, from.size(), to));
  }
};

TEST_F(ShareTest, EveryKindComesBackWhole) {
  const LabelSpec specs[] = {MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, ValueEncoding::kPacked),
                             MakeSpec(LabelKind::kMarginalSmoothing, 10, 5, ValueEncoding::kF16),
                             MakeSpec(LabelKind::kFull, 10, 0, ValueEncoding::kF32),
                             MakeSpec(LabelKind::kLogits, 10, 0, ValueEncoding::kBf16),
                             MakeSpec(LabelKind::kHard, 10, 1, ValueEncoding::kPacked, BoxEncoding::kFractionF16),
                             MakeMapSpec(300, 3, 2, 2, ValueEncoding::kF16)};
  for (const LabelSpec& spec : specs) {
    SCOPED_TRACE(test::Describe(spec));
    RandomLabels set(40, spec);
    set.records[7] = {};
    set.records[7].key_hash = Hash64(set.keys[7]);
    set.records[7].skip_reason = "no JPEG";
    set.records[9].class_index = kNoClass;
    LabelFileWriterOptions overwrite;
    overwrite.overwrite = true;
    const auto built = set.Build(Path("db.fkdb"), overwrite);
    ASSERT_TRUE(built) << built.error().message;
    PackOptions options;
    options.overwrite = true;
    const auto packed = PackLabelSet(Path("db.fkdb"), Path("share"), options);
    ASSERT_TRUE(packed) << packed.error().message;
    EXPECT_EQ(packed->drawn_images, 0u);
    const auto verified = Verify(/*deep=*/true);
    ASSERT_TRUE(verified) << verified.error().message;
    EXPECT_EQ(verified->label_set.digest, built->digest);
    const auto unpacked = Unpack();
    ASSERT_TRUE(unpacked) << unpacked.error().message;
    EXPECT_EQ(unpacked->digest, built->digest);
    EXPECT_EQ(RecipeDifference(*unpacked, *built), "");
    ExpectSameRecords("db.fkdb", "out.fkdb");
  }
}

TEST_F(ShareTest, ManyGroupsOnAnyNumberOfThreadsAreTheSameBytes) {
  const RandomLabels set = Drawn(RandomLabels(3000, MakeSpec(LabelKind::kMarginalSmoothing, 10, 2, ValueEncoding::kPacked), 3));
  const auto built = set.Build(Path("db.fkdb"));
  const PackReport report = Pack("db.fkdb", "share", 1);
  EXPECT_EQ(report.drawn_images, 3000u);
  EXPECT_EQ(report.manifest.shards.size(), 3u);
  Pack("db.fkdb", "again", 4);
  for (const auto& entry : fs::directory_iterator(Path("share"))) {
    EXPECT_EQ(ReadBytes(entry.path()), ReadBytes(Path("again") / entry.path().filename())) << entry.path();
  }
  for (const int threads : {1, 5}) {
    EXPECT_TRUE(Verify(true, threads));
    UnpackOptions options;
    options.threads = threads;
    options.file.overwrite = true;
    EXPECT_EQ(UnpackShare(Path("share"), Path("out.fkdb"), options)->digest, built->digest);
  }
  ExpectSameRecords("db.fkdb", "out.fkdb");
  // What could be drawn again costs nothing: with boxes it is larger.
  PackOptions stored;
  stored.store_boxes = true;
  const auto larger = PackLabelSet(Path("db.fkdb"), Path("stored"), stored);
  EXPECT_EQ(larger->drawn_images, 0u);
  EXPECT_GT(larger->manifest.total_bytes, report.manifest.total_bytes + 3000 * 3 * 3);
  EXPECT_EQ(UnpackShare(Path("stored"), Path("stored.fkdb"))->digest, built->digest);
}

TEST_F(ShareTest, APartIsWhatSubsetGives) {
  RandomLabels set(2500, MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, ValueEncoding::kPacked), 20);
  for (size_t i = 0; i < set.records.size(); ++i) {
    if (i % 4 == 0) set.records[i] = Drawn(RandomLabels(1, set.recipe.spec, 20, i)).records[0];
    set.records[i].key_hash = Hash64(set.keys[i]);
    set.records[i].class_index = i < 1100 ? 3 : static_cast<int32_t>(4 + i % 5);
  }
  ASSERT_TRUE(set.Build(Path("db.fkdb")));
  Pack();
  const auto expect = [&](SubsetOptions subset, UnpackOptions options) {
    subset.file.overwrite = true;
    const auto wanted = SubsetLabelSet(Path("db.fkdb"), Path("subset.fkdb"), subset);
    ASSERT_TRUE(wanted) << wanted.error().message;
    const auto got = Unpack(options);
    ASSERT_TRUE(got) << got.error().message;
    EXPECT_EQ(got->digest, wanted->digest);
    EXPECT_EQ(RecipeDifference(*got, *wanted), "");
    ExpectSameRecords("subset.fkdb", "out.fkdb");
  };
  SubsetOptions subset;
  UnpackOptions options;
  for (const uint32_t crops : {1u, 3u, 10u, 11u, 20u, 30u}) {
    subset.crops = options.crops = crops;
    expect(subset, options);
  }
  subset.images = options.images = {set.keys[2400], set.keys[5], set.keys[1023], set.keys[1024]};
  expect(subset, options);
  subset.crops = options.crops = 4;
  expect(subset, options);
  subset.images.clear();
  options.images.clear();
  options.classes = {"class5", "8"};
  for (size_t i = 1100; i < 2500; ++i) {
    if (i % 5 == 1 || i % 5 == 4) subset.images.push_back(set.keys[i]);
  }
  expect(subset, options);
  options.images = {set.keys[1101], set.keys[1102], set.keys[3]};
  subset.images = {set.keys[1101]};
  expect(subset, options);

  options = {};
  options.images = {set.keys[1], "no.jpg"};
  EXPECT_EQ(Unpack(options).error().message, Path("share").string() + ": no image 'no.jpg' in it");
  options.images = {set.keys[1], set.keys[1]};
  EXPECT_EQ(Unpack(options).error().message, "image '00001.jpg' is named twice");
  options.images.clear();
  options.classes = {"class3", "cat"};
  EXPECT_EQ(Unpack(options).error().message, Path("share").string() + ": no class 'cat' among its 10");
  options.classes = {"class9"};
  EXPECT_EQ(Unpack(options).error().message, Path("share").string() + ": no image of the classes asked for");
}

// Of a part only the shards, groups and layers that it needs are read: damage elsewhere does not matter.
TEST_F(ShareTest, APartReadsWhatItNeeds) {
  const RandomLabels set(1500, MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, ValueEncoding::kPacked), 16);
  ASSERT_TRUE(set.Build(Path("db.fkdb")));
  const PackReport report = Pack();
  fs::remove(Path("share") / "labels-00001.fkp");
  UnpackOptions options;
  options.images = {set.keys[3]};
  EXPECT_TRUE(Unpack(options));
  options.crops = 2;
  // The last chunk of the first shard is its last layer.
  const fs::path first = Path("share") / "labels-00000.fkp";
  std::string bytes = ReadBytes(first);
  bytes[report.manifest.shards[0].index_at - 1] ^= 1;
  WriteBytes(first, bytes);
  EXPECT_TRUE(Unpack(options));
  options.crops = 9;
  EXPECT_EQ(Unpack(options).error().message.substr(0, first.string().size() + 28), first.string() + ": group 0: layer 3: SHA-256 ");
  EXPECT_EQ(Verify(false).error().message, (Path("share") / "labels-00001.fkp").string() + ": no such file");
}

TEST_F(ShareTest, EveryFlippedByteIsFound) {
  const RandomLabels set = Drawn(RandomLabels(30, MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, ValueEncoding::kPacked), 16));
  ASSERT_TRUE(set.Build(Path("db.fkdb")));
  Pack();
  const fs::path shard = Path("share") / "labels-00000.fkp";
  const std::string good = ReadBytes(shard);
  for (size_t at = 0; at < good.size(); at += 1 + at / 64) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
    WriteBytes(shard, bad);
    EXPECT_NE(VerifyError(), "") << at;
    const auto unpacked = Unpack();
    ASSERT_FALSE(unpacked) << at;
    EXPECT_EQ(unpacked.error().code, ErrorCode::kCorruption) << unpacked.error().message;
    EXPECT_EQ(unpacked.error().message.find(shard.string()), 0u) << unpacked.error().message;
    EXPECT_FALSE(fs::exists(Path("out.fkdb")));
  }
  for (size_t size = 0; size < good.size(); size += 1 + size / 16) {
    WriteBytes(shard, good.substr(0, size));
    EXPECT_EQ(VerifyError(), shard.string() + ": " + std::to_string(size) + " bytes, the manifest says " + std::to_string(good.size()));
    EXPECT_FALSE(Unpack());
  }
  WriteBytes(shard, good + "x");
  EXPECT_NE(VerifyError(), "");
  WriteBytes(shard, good);
  EXPECT_EQ(VerifyError(true), "");
  fs::remove(shard);
  EXPECT_EQ(Verify(false).error().message, shard.string() + ": no such file");
}

TEST_F(ShareTest, SwappedShardsAreFound) {
  const RandomLabels set(2048, MakeSpec(LabelKind::kHard, 10, 1, ValueEncoding::kPacked), 2);
  ASSERT_TRUE(set.Build(Path("db.fkdb")));
  Pack();
  fs::rename(Path("share") / "labels-00000.fkp", Path("x"));
  fs::rename(Path("share") / "labels-00001.fkp", Path("share") / "labels-00000.fkp");
  fs::rename(Path("x"), Path("share") / "labels-00001.fkp");
  EXPECT_NE(VerifyError(), "");
  EXPECT_EQ(Unpack().error().code, ErrorCode::kCorruption);
}

// Claims that no hash speaks for.
TEST_F(ShareTest, AManifestThatLiesIsRefusedByName) {
  const RandomLabels set(30, MakeSpec(LabelKind::kMarginalSmoothing, 10, 3, ValueEncoding::kPacked), 16);
  ASSERT_TRUE(set.Build(Path("db.fkdb")));
  const ShareShard shard = Pack().manifest.shards[0];
  const std::string good = ReadBytes(ManifestPath()), where = ManifestPath().string() + ": manifest: ";
  const auto error = [&](const std::string& from, const std::string& to, bool deep = false) {
    WriteBytes(ManifestPath(), good);
    Edit(from, to);
    const std::string message = VerifyError(deep);
    const auto unpacked = Unpack();
    EXPECT_FALSE(unpacked.has_value() && !deep) << from;
    EXPECT_FALSE(fs::exists(Path("out.fkdb")) && !deep);
    return message;
  };
  EXPECT_EQ(error("labels-00000.fkp", "../labels-00000.fkp"), where + "field 'shards[0].file' is not labels-NNNNN.fkp, but '../labels-00000.fkp'");
  EXPECT_EQ(error("labels-00000.fkp", "labels-0.fkp"), where + "field 'shards[0].file' is not labels-NNNNN.fkp, but 'labels-0.fkp'");
  EXPECT_EQ(error("\"images\": 30", "\"images\": 31"), where + "shards of 31 images, the label set has 30");
  EXPECT_EQ(error("\"images\": 30", "\"images\": 99999999999"), where + "field 'shards[0].images' is not a whole number from 0 to 4294967295");
  EXPECT_EQ(error("\"first_image\": 0", "\"first_image\": 1"), where + "labels-00000.fkp begins with image 1, expected 0");
  EXPECT_EQ(error("\"total_bytes\": ", "\"total_bytes\": 1"), where + "shards of " + std::to_string(shard.bytes) + " bytes, expected 1" + std::to_string(shard.bytes));
  EXPECT_EQ(error("\"format\": \"fkdb-share\"", "\"format\": \"fkdb\""), where + "field 'format' is not \"fkdb-share\"");
  EXPECT_EQ(error("\"layers\": [", "\"layers\": [ 0,"), where + "field 'layers' is not an ascending list of crops");
  EXPECT_EQ(error(shard.sha256, "x" + shard.sha256.substr(1)), where + "field 'shards[0].sha256' is not a SHA-256 in hex");
  EXPECT_EQ(error("\"last_key\": \"00029.jpg\"", "\"last_key\": \"0\""), where + "field 'shards[0].last_key' is before its first_key");
  EXPECT_EQ(error("\"first_key\": \"00000.jpg\"", "\"first_key\": \"0\""),
            (Path("share") / "labels-00000.fkp").string() + ": its first image is '00000.jpg', the manifest says '0'");
  EXPECT_EQ(error("\"at\": " + std::to_string(shard.index_at), "\"at\": 17").substr(0, where.size() + 23), where + "field 'shards[0].index'");
  EXPECT_EQ(error("{", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{"), where + "lists in lists, 33 deep");
  EXPECT_EQ(error("{", ""), where + "not a JSON object");
  // What only the labels themselves show.
  const std::string folder = Path("share").string();
  EXPECT_EQ(error(shard.columns_sha256, std::string(64, '0'), true).substr(0, folder.size() + 18), folder + "/labels-00000.fkp:");
  const std::string digest = LabelSet::Open(Path("db.fkdb"))->manifest().digest;
  EXPECT_EQ(error(digest, "sha256:" + std::string(64, '0'), true), folder + ": digest " + digest + ", the manifest says sha256:" + std::string(64, '0'));
  WriteBytes(ManifestPath(), good);
  Edit(digest, "sha256:" + std::string(64, '0'));
  fs::remove(Path("out.fkdb"));  // of the case before the last, which only `--deep` finds
  EXPECT_EQ(Unpack().error().message, Path("out.fkdb.partial").string() + ": digest " + digest + ", expected sha256:" + std::string(64, '0'));
  EXPECT_FALSE(fs::exists(Path("out.fkdb")));
  // A newer version's is not corrupt.
  WriteBytes(ManifestPath(), good);
  Edit("\"format_version\": 1", "\"format_version\": 2");
  EXPECT_EQ(Verify(false).error().code, ErrorCode::kUnsupported);
  WriteBytes(ManifestPath(), good);
  Edit("\"features\": []", "\"features\": [\"holograms\"]");
  EXPECT_EQ(Verify(false).error().code, ErrorCode::kUnsupported);
  // What people say of it can be edited.
  WriteBytes(ManifestPath(), good);
  Edit("\"notes\": \"\"", "\"notes\": \"see the card\"");
  EXPECT_EQ(VerifyError(true), "");
  EXPECT_EQ(Unpack()->provenance.notes, "see the card");
}

TEST_F(ShareTest, AShareIsNotReplacedUnasked) {
  const RandomLabels set(2048, MakeSpec(LabelKind::kHard, 10, 1, ValueEncoding::kPacked), 2), small(10);
  ASSERT_TRUE(set.Build(Path("db.fkdb")));
  ASSERT_TRUE(small.Build(Path("small.fkdb")));
  Pack();
  PackOptions options;
  EXPECT_EQ(PackLabelSet(Path("small.fkdb"), Path("share"), options).error().message,
            ManifestPath().string() + ": exists already; choose another folder, or --overwrite to replace it");
  options.overwrite = true;
  ASSERT_TRUE(PackLabelSet(Path("small.fkdb"), Path("share"), options));
  EXPECT_FALSE(fs::exists(Path("share") / "labels-00001.fkp"));
  EXPECT_EQ(VerifyError(true), "");
  // What an interrupted pack leaves is no share, and in nobody's way.
  fs::remove(ManifestPath());
  WriteBytes(Path("share") / "labels-00000.fkp.partial", "half");
  EXPECT_EQ(Verify(false).error().message, Path("share").string() + ": no shared label set there: it has no manifest.json");
  options.overwrite = false;
  ASSERT_TRUE(PackLabelSet(Path("small.fkdb"), Path("share"), options));
  EXPECT_EQ(VerifyError(true), "");
  EXPECT_FALSE(fs::exists(Path("share") / "labels-00000.fkp.partial"));
  EXPECT_EQ(PackLabelSet(Path("no.fkdb"), Path("x"), {}).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(fs::exists(Path("x")));
}

TEST_F(ShareTest, AnUnpackIsResumed) {
  const RandomLabels set(2500, MakeSpec(LabelKind::kHard, 10, 1, ValueEncoding::kPacked), 2);
  const std::string digest = set.Build(Path("db.fkdb"))->digest;
  Pack();
  std::atomic<bool> stop = false;
  UnpackOptions options;
  options.threads = 2;
  options.stop = &stop;
  options.progress = [&](uint64_t done, uint64_t) { stop = done >= 1500; };
  EXPECT_EQ(UnpackShare(Path("share"), Path("out.fkdb"), options).error().code, ErrorCode::kIncomplete);
  EXPECT_FALSE(fs::exists(Path("out.fkdb")));
  options.stop = nullptr;
  options.file.resume = true;
  const auto resumed = UnpackShare(Path("share"), Path("out.fkdb"), options);
  ASSERT_TRUE(resumed) << resumed.error().message;
  EXPECT_EQ(resumed->digest, digest);
  stop = true;
  PackOptions pack;
  pack.stop = &stop;
  EXPECT_EQ(PackLabelSet(Path("db.fkdb"), Path("stopped"), pack).error().code, ErrorCode::kIncomplete);
  EXPECT_FALSE(fs::exists(Path("stopped") / kShareManifestName));
}

TEST(Chunk, WhatIsNotOneIsRefusedBeforeItTakesMemory) {
  ChunkCodec codec;
  const Columns columns = {Column(1000, 7), {}, {1, 2, 3}};
  const ColumnKind kinds[] = {ColumnKind::kCodes, ColumnKind::kText, ColumnKind::kCodes};
  const std::vector<std::byte> good = codec.Encode(columns, kinds);
  EXPECT_LT(good.size(), 100u);
  EXPECT_EQ(*codec.Decode(good, 3, 64), columns);
  const auto error = [&](size_t at, uint32_t number) {
    std::vector<std::byte> bad = good;
    std::memcpy(bad.data() + at, &number, 4);
    const auto decoded = codec.Decode(bad, 3, 64);
    return decoded ? std::string() : decoded.error().message;
  };
  EXPECT_EQ(error(0, 4), "4 columns in 44 bytes, expected 3");
  EXPECT_EQ(error(4, 1u << 30), "columns of 1073741827 bytes, at most 67108864");  // a bomb
  EXPECT_EQ(error(4, 999).substr(0, 9), "column 0:");
  EXPECT_EQ(error(4, 1001).substr(0, 9), "column 0:");
  EXPECT_EQ(error(8, 2000), "column 0: 1000 bytes stored as 2000");
  EXPECT_EQ(error(8, 16), "44 bytes, its columns say 47");
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(codec.Decode(std::span(good).first(size), 3, 64)) << size;
  }
}

TEST(Shard, NamesAreItsOwn) {
  for (const char* good : {"labels-00000.fkp", "labels-123456.fkp"}) EXPECT_TRUE(IsShardName(good)) << good;
  for (const char* bad : {"", "labels-0000.fkp", "labels-0000x.fkp", "../labels-00000.fkp", "labels-00000.fkp ", "labels-00000.fkp/", "labels-/../0.fkp"}) {
    EXPECT_FALSE(IsShardName(bad)) << bad;
  }
}

TEST(Shard, KeysComeBackOrAreRefused) {
  const std::vector<std::string> keys = {"", "a", "a/b", std::string("a/b\0c", 5), "a/c", "\xff"};
  const auto bytes = EncodeKeys(keys);
  EXPECT_EQ(*ParseKeys(bytes, 6), keys);
  EXPECT_EQ(ParseKeys(bytes, 5).error().message, "keys: bytes are left behind the last");
  EXPECT_EQ(ParseKeys(bytes, 7).error().message, "keys: end in key 6");
  const std::vector<uint8_t> same = {0, 1, 'a', 1, 0}, shares = {2, 1, 'a'}, bomb = {0, 0xff, 0xff, 0xff, 0xff, 0x0f};
  EXPECT_EQ(ParseKeys(same, 2).error().message, "keys: key 1 is not behind the one before");
  EXPECT_EQ(ParseKeys(shares, 1).error().message, "keys: key 0 shares 2 bytes with the one before");
  EXPECT_EQ(ParseKeys(bomb, 1).error().message, "keys: end in key 0");
}

}  // namespace
}  // namespace fkdb
