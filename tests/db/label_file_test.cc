// SPDX-License-Identifier: Apache-2.0
#include "db/label_file.h"

#include <gtest/gtest.h>
#include <lmdb.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <thread>

#include "db/digest.h"
#include "db/file_names.h"
#include "db/lmdb_env.h"
#include "db/lock_file.h"
#include "db/page_walk.h"
#include "tests/db/test_files.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
using test::RandomLabels;

class LabelFileTest : public test::TempFolder {
 protected:
  fs::path path = Path("labels.fkdb");

  static void ExpectHolds(const LabelFile& file, const RandomLabels& set, uint64_t images) {
    ASSERT_EQ(file.num_images(), images);
    for (uint64_t i = 0; i < images; ++i) {
      const auto bytes = file.RecordBytes(i);
      ASSERT_TRUE(bytes) << bytes.error().message;
      const auto expected = set.Encoded(i);
      EXPECT_TRUE(std::equal(bytes->begin(), bytes->end(), expected.begin(), expected.end()));
    }
  }
};

TEST_F(LabelFileTest, GivesBackWhatWasWritten) {
  const RandomLabels set(300);
  const auto manifest = set.Build(path);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_TRUE(manifest->complete);
  EXPECT_EQ(manifest->num_images, 300u);
  EXPECT_EQ(manifest->num_crops, 1200u);
  const auto file = LabelFile::Open(path);
  ASSERT_TRUE(file) << file.error().message;
  ExpectHolds(*file, set, 300);
  EXPECT_EQ(file->manifest().digest, manifest->digest);
  for (uint64_t i = 0; i < 300; ++i) {
    EXPECT_EQ(*file->Find(set.keys[i]), i);
    EXPECT_EQ(**file->Key(i), set.keys[i]);
  }
  EXPECT_EQ(file->Find("nothing").error().message, path.string() + ": no image 'nothing' in it");
  EXPECT_EQ(file->RecordBytes(300).error().message,
            path.string() + ": no image 300: the label set has 300 (counted from 0)");
  // Nothing is left beside the file.
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(LabelFileTest, AnEmptyLabelSetIsOne) {
  const RandomLabels set(0);
  ASSERT_TRUE(set.Build(path));
  const auto file = LabelFile::Open(path);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->num_images(), 0u);
}

TEST_F(LabelFileTest, PartsAddUpToTheFile) {
  ASSERT_TRUE(RandomLabels(500).Build(path));
  const auto file = LabelFile::Open(path);
  ASSERT_TRUE(file);
  const auto use = file->Use();
  ASSERT_TRUE(use);
  EXPECT_EQ(use->file_bytes, fs::file_size(path));
  EXPECT_EQ(use->record_bytes + use->directory_bytes + use->names_bytes + use->manifest_bytes + use->lmdb_bytes +
                use->waste_bytes,
            use->file_bytes);
  uint64_t records = 0;
  for (uint64_t i = 0; i < 500; ++i) records += file->RecordBytes(i)->size();
  EXPECT_EQ(use->record_bytes, records);
}

// The digest is of what was labelled, not of how the file came about.
TEST_F(LabelFileTest, TheDigestDoesNotDependOnBlocksTransactionsOrTheMap) {
  const RandomLabels set(400);
  const std::string digest = set.Build(path)->digest;
  LabelFileWriterOptions options;
  options.commit_bytes = 1;
  EXPECT_EQ(set.Build(Path("a.fkdb"), options)->digest, digest);
  options = {};
  options.block_bytes = 4096;
  options.commit_seconds = 0;
  EXPECT_EQ(set.Build(Path("b.fkdb"), options)->digest, digest);
  options = {};
  options.short_block_seconds = 0;
  EXPECT_EQ(set.Build(Path("c.fkdb"), options)->digest, digest);
  options = {};
  options.initial_map_bytes = 1 << 16;  // has to grow many times
  EXPECT_EQ(set.Build(Path("d.fkdb"), options)->digest, digest);
  const auto file = LabelFile::Open(Path("d.fkdb"));
  ASSERT_TRUE(file) << file.error().message;
  ExpectHolds(*file, set, 400);
}

// A teacher so slow that every image is committed before its block is full: nothing is lost at any
// moment, and the finished file is hardly larger than that of a fast one.
TEST_F(LabelFileTest, OpenBlocksAreReplacedByFullOnes) {
  const RandomLabels set(300, test::MakeSpec(LabelKind::kMarginalSmoothing, 1000, 5, ValueEncoding::kPacked), 100);
  const std::string digest = set.Build(Path("fast.fkdb"))->digest;
  LabelFileWriterOptions options;
  options.short_block_seconds = options.commit_seconds = 0;
  auto writer = LabelFileWriter::Open(path, set.recipe, options);
  ASSERT_TRUE(writer);
  LabelFileOptions partial;
  partial.allow_partial = true;
  for (uint64_t i = 0; i < 300; ++i) {
    ASSERT_TRUE(writer->Append(set.Encoded(i)));
    if (i % 7 != 0) continue;
    const auto file = LabelFile::Open(PartialPath(path), partial);
    ASSERT_TRUE(file) << file.error().message;
    ASSERT_EQ(file->num_images(), i + 1);
    ASSERT_TRUE(file->RecordBytes(i));
  }
  EXPECT_EQ(writer->Finish(set.keys)->digest, digest);
  const auto slow = LabelFile::Open(path), fast = LabelFile::Open(Path("fast.fkdb"));
  ASSERT_TRUE(slow) << slow.error().message;
  ExpectHolds(*slow, set, 300);
  EXPECT_EQ(slow->num_blocks(), fast->num_blocks());
  RecordProperty("bytes", std::to_string(slow->Use()->file_bytes) + " against " + std::to_string(fast->Use()->file_bytes));
  EXPECT_LE(slow->Use()->file_bytes, fast->Use()->file_bytes);
  EXPECT_FALSE(fs::exists(PartialPath(path)) || fs::exists(CompactPath(path)));
}

TEST_F(LabelFileTest, TheDigestSeesEveryField) {
  const RandomLabels set(3);
  std::vector<std::string> digests = {set.Build(path)->digest};
  const auto changed = [&](auto&& change) {
    RandomLabels other(3);
    change(other);
    LabelFileWriterOptions options;
    options.overwrite = true;
    const auto manifest = other.Build(Path("other.fkdb"), options);
    EXPECT_TRUE(manifest) << manifest.error().message;
    return manifest->digest;
  };
  digests.push_back(changed([](RandomLabels& s) { s.records[1].pixel_boxes[2].top ^= 1; }));
  digests.push_back(changed([](RandomLabels& s) { s.records[1].flips[2] ^= 1; }));
  digests.push_back(changed([](RandomLabels& s) { std::swap(s.records[1].indices[3], s.records[1].indices[4]); }));
  digests.push_back(changed([](RandomLabels& s) { s.records[1].values[4] = 0; }));
  digests.push_back(changed([](RandomLabels& s) { s.records[1].class_index = (s.records[1].class_index + 1) % 10; }));
  digests.push_back(changed([](RandomLabels& s) { s.records[1].content_hash[15] ^= 1; }));
  digests.push_back(changed([](RandomLabels& s) { s.records[1].width += 1; }));
  digests.push_back(changed([](RandomLabels& s) { s.recipe.data_set.class_names[9] = "other"; }));
  digests.push_back(changed([](RandomLabels& s) { s.recipe.spec.temperature = 2; }));
  digests.push_back(changed([](RandomLabels& s) {
    s.keys[2] = "00002.jpeg";
    s.records[2].key_hash = Hash64(s.keys[2]);
  }));
  std::sort(digests.begin(), digests.end());
  EXPECT_EQ(std::unique(digests.begin(), digests.end()), digests.end());
  // The recipe and provenance are not part of it.
  EXPECT_EQ(changed([](RandomLabels& s) {
              s.recipe.provenance.notes = "other";
              s.recipe.augmentation.seed = 5;
            }),
            set.Build(Path("again.fkdb"))->digest);
}

TEST_F(LabelFileTest, AnInterruptedBuildIsResumed) {
  const RandomLabels set(400);
  const std::string digest = set.Build(Path("whole.fkdb"))->digest;
  LabelFileWriterOptions options;
  options.commit_seconds = 0;
  options.block_bytes = 8192;
  {
    auto writer = LabelFileWriter::Open(path, set.recipe, options);
    ASSERT_TRUE(writer);
    ASSERT_TRUE(set.AppendUntil(&*writer, 250));
  }
  EXPECT_EQ(LabelFile::Open(path).error().code, ErrorCode::kIncomplete);
  EXPECT_EQ(LabelFile::Open(PartialPath(path)).error().code, ErrorCode::kIncomplete);
  LabelFileOptions partial;
  partial.allow_partial = true;
  uint64_t committed = 0;
  {
    const auto file = LabelFile::Open(PartialPath(path), partial);
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_TRUE(file->partial());
    committed = file->num_images();
    EXPECT_GT(committed, 200u);
    ExpectHolds(*file, set, committed);
    EXPECT_EQ(*file->Find(set.keys[100]), 100u);
  }
  options.resume = true;
  auto writer = LabelFileWriter::Open(path, set.recipe, options);
  ASSERT_TRUE(writer) << writer.error().message;
  EXPECT_EQ(writer->num_images(), committed);
  ASSERT_TRUE(set.AppendUntil(&*writer, 400));
  const auto manifest = writer->Finish(set.keys);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->digest, digest);
}

TEST_F(LabelFileTest, ABuildKilledBeforeItsFirstTransactionBeginsAnew) {
  const RandomLabels set(3);
  LabelFileWriterOptions resume;
  resume.resume = true;
  test::WriteBytes(PartialPath(path), "");
  ASSERT_TRUE(set.Build(path, resume));
  { const auto env = OpenEnv(PartialPath(Path("b.fkdb")), 0, 1 << 20); }  // LMDB's meta pages only
  EXPECT_EQ(fs::file_size(PartialPath(Path("b.fkdb"))), 8192u);
  ASSERT_TRUE(set.Build(Path("b.fkdb"), resume));
  // What is not ours is not thrown away.
  test::WriteBytes(PartialPath(Path("c.fkdb")), std::string(20000, 'x'));
  EXPECT_EQ(LabelFileWriter::Open(Path("c.fkdb"), set.recipe, resume).error().message,
            PartialPath(Path("c.fkdb")).string() + ": not an LMDB file, so not a label set");
  EXPECT_EQ(fs::file_size(PartialPath(Path("c.fkdb"))), 20000u);
  EXPECT_EQ(LabelFileWriter::Open(Path("d.partial"), set.recipe).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(LabelFileTest, FlushCommitsEverything) {
  const RandomLabels set(50);
  {
    auto writer = LabelFileWriter::Open(path, set.recipe);
    ASSERT_TRUE(set.AppendUntil(&*writer, 33));
    ASSERT_TRUE(writer->Flush());
  }
  LabelFileOptions partial;
  partial.allow_partial = true;
  EXPECT_EQ(LabelFile::Open(PartialPath(path), partial)->num_images(), 33u);
}

TEST_F(LabelFileTest, ExistingFilesAreNotOverwritten) {
  const RandomLabels set(3);
  ASSERT_TRUE(set.Build(path));
  EXPECT_EQ(LabelFileWriter::Open(path, set.recipe).error().message,
            path.string() + ": exists already; choose another name, or --overwrite to replace it");
  LabelFileWriterOptions resume, overwrite;
  resume.resume = true;
  overwrite.overwrite = true;
  EXPECT_EQ(LabelFileWriter::Open(path, set.recipe, resume).error().code, ErrorCode::kAlreadyExists);
  ASSERT_TRUE(set.Build(path, overwrite));

  { auto writer = LabelFileWriter::Open(Path("b.fkdb"), set.recipe); }
  EXPECT_EQ(LabelFileWriter::Open(Path("b.fkdb"), set.recipe).error().message,
            Path("b.fkdb.partial").string() +
                ": an interrupted build is there; --resume continues it, --overwrite throws it away");
  ASSERT_TRUE(set.Build(Path("b.fkdb"), overwrite));
  EXPECT_EQ(LabelFileWriter::Open(Path("no/c.fkdb"), set.recipe).error().message,
            Path("no").string() + ": no such folder for the output");
}

TEST_F(LabelFileTest, AResumeWithAnotherRecipeOrDataSetIsRefusedByName) {
  const RandomLabels set(3);
  { auto writer = LabelFileWriter::Open(path, set.recipe); }
  LabelFileWriterOptions resume;
  resume.resume = true;
  Manifest other = set.recipe;
  other.augmentation.scale = {0.2, 1};
  auto refused = LabelFileWriter::Open(path, other, resume);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused.error().message,
            PartialPath(path).string() +
                ": cannot resume with another recipe: augmentation.scale: [0.08,1.0] in the file, [0.2,1.0] asked for");
  other = RandomLabels(4).recipe;
  refused = LabelFileWriter::Open(path, other, resume);
  EXPECT_EQ(refused.error().code, ErrorCode::kMismatch);
  EXPECT_EQ(refused.error().message, PartialPath(path).string() +
                                         ": cannot resume with another data set: data_set.images: 3 in the file, 4 asked for");
}

TEST_F(LabelFileTest, ASecondWriterIsLockedOut) {
  const RandomLabels set(3);
  auto writer = LabelFileWriter::Open(path, set.recipe);
  ASSERT_TRUE(writer);
  LabelFileWriterOptions resume;
  resume.resume = true;
  EXPECT_EQ(LabelFileWriter::Open(path, set.recipe, resume).error().code, ErrorCode::kLocked);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto second = LabelFileWriter::Open(path, set.recipe, resume);
    ::_exit(!second && second.error().code == ErrorCode::kLocked ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(LabelFileTest, AKilledWritersLockVanishesWithIt) {
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lock = LockFile::Acquire(Path("x.lock"));
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(fs::exists(Path("x.lock")));
  EXPECT_TRUE(LockFile::Acquire(Path("x.lock")));
  EXPECT_FALSE(fs::exists(Path("x.lock")));
}

TEST_F(LabelFileTest, FinishChecksKeysAgainstRecords) {
  const RandomLabels set(3);
  auto writer = LabelFileWriter::Open(path, set.recipe);
  ASSERT_TRUE(set.AppendUntil(&*writer, 3));
  std::vector<std::string> keys = set.keys;
  keys[1] = "00001.png";
  EXPECT_EQ(writer->Finish(keys).error().message, PartialPath(path).string() + ": image '00001.png': its record belongs to another key");
  EXPECT_EQ(writer->Finish(std::span(set.keys).first(2)).error().message,
            PartialPath(path).string() + ": 3 images were appended, 2 keys given");
  EXPECT_TRUE(writer->Finish(set.keys));
}

// A file system that takes no more bytes: one clear error, and what was committed stays.
TEST_F(LabelFileTest, ADiskThatIsFullLosesNothingCommitted) {
  const RandomLabels set(2000);
  const std::string digest = set.Build(Path("whole.fkdb"))->digest;
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {300000, 300000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    LabelFileWriterOptions options;
    options.commit_seconds = 0;
    options.block_bytes = 16384;
    auto writer = LabelFileWriter::Open(path, set.recipe, options);
    const auto appended = set.AppendUntil(&*writer, 2000);
    ::_exit(!appended && appended.error().code == ErrorCode::kResourceExhausted ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  LabelFileWriterOptions resume;
  resume.resume = true;
  auto writer = LabelFileWriter::Open(path, set.recipe, resume);
  ASSERT_TRUE(writer) << writer.error().message;
  EXPECT_GT(writer->num_images(), 100u);
  ASSERT_TRUE(set.AppendUntil(&*writer, 2000));
  EXPECT_EQ(writer->Finish(set.keys)->digest, digest);
}

TEST_F(LabelFileTest, EveryTruncationIsRefusedBeforeLmdbMapsIt) {
  ASSERT_TRUE(RandomLabels(60).Build(path));
  const std::string good = test::ReadBytes(path);
  for (size_t size = 0; size < good.size(); size += size < 9000 ? 97 : 4093) {
    test::WriteBytes(Path("cut.fkdb"), good.substr(0, size));
    const auto file = LabelFile::Open(Path("cut.fkdb"));
    ASSERT_FALSE(file) << size;
    EXPECT_EQ(file.error().code, ErrorCode::kCorruption) << file.error().message;
  }
  test::WriteBytes(Path("cut.fkdb"), good + std::string(4096, '\0'));
  EXPECT_EQ(LabelFile::Open(Path("cut.fkdb")).error().code, ErrorCode::kCorruption);
  test::WriteBytes(Path("cut.fkdb"), good.substr(0, good.size() - 4096));
  EXPECT_EQ(LabelFile::Open(Path("cut.fkdb")).error().message,
            Path("cut.fkdb").string() + ": damaged LMDB file: expected " + std::to_string(good.size()) + " bytes (" +
                std::to_string(good.size() / 4096) + " pages of 4096), got " + std::to_string(good.size() - 4096) +
                ": truncated or not copied whole");
}

// One byte at a time over a whole small file: refused, or harmless because nothing is read from it.
TEST_F(LabelFileTest, EveryFlippedByteIsFoundOrHarmless) {
  const RandomLabels set(12);
  const std::string digest = set.Build(path)->digest;
  const std::string good = test::ReadBytes(path);
  const fs::path bad = Path("bad.fkdb");
  int refused = 0, harmless = 0;
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << (at % 8)));
    test::WriteBytes(bad, bytes);
    const auto file = LabelFile::Open(bad);
    bool found = !file;
    if (file) {
      LogicalDigest read(file->manifest().spec, file->manifest().data_set.class_names);
      const auto keys = file->names().AllKeys();
      found = !keys;
      for (uint64_t i = 0; !found && i < file->num_images(); ++i) {
        const auto record = file->RecordBytes(i);
        found = !record;
        if (record) read.Add(ImageDigest((*keys)[i], *DecodeRecord(*RecordView::Open(*record, set.recipe.spec))));
      }
      if (!found) {
        ASSERT_EQ(read.Finish(), digest) << "byte " << at << " changed labels unnoticed";
      }
    }
    ++(found ? refused : harmless);
  }
  // Unused parts: freed pages, the ends of pages, the older meta page's numbers.
  EXPECT_GT(refused, 12 * 150);
  EXPECT_GT(harmless, 0);
}

TEST_F(LabelFileTest, OtherFilesAreToldApart) {
  test::WriteBytes(Path("text.fkdb"), std::string(20000, 'x'));
  EXPECT_EQ(LabelFile::Open(Path("text.fkdb")).error().message,
            Path("text.fkdb").string() + ": not an LMDB file, so not a label set");
  EXPECT_EQ(LabelFile::Open(Path("none.fkdb")).error().message, Path("none.fkdb").string() + ": no such file");
  EXPECT_EQ(LabelFile::Open(folder_).error().message, folder_.string() + ": not a file");
  {  // an LMDB file that is no label set
    const auto env = OpenEnv(Path("lmdb.fkdb"), 0, 1 << 20);
    auto txn = BeginTxn(env->get(), 0);
    MDB_dbi dbi;
    mdb_dbi_open(txn->get(), "other", MDB_CREATE, &dbi);
    mdb_txn_commit(txn->release());
  }
  EXPECT_EQ(LabelFile::Open(Path("lmdb.fkdb")).error().message,
            Path("lmdb.fkdb").string() + ": an LMDB file, but not a label set: it has no database 'meta'");
}

// Rewrites values of the meta database, as a newer version or an attacker might have written them.
void Put(const fs::path& path, std::string_view key_text, const std::string& text) {
  const auto env = OpenEnv(path, 0, 1 << 24);
  ASSERT_TRUE(env);
  auto txn = BeginTxn(env->get(), 0);
  MDB_dbi meta;
  ASSERT_EQ(mdb_dbi_open(txn->get(), kMetaDatabase, 0, &meta), 0);
  MDB_val key = {key_text.size(), const_cast<char*>(key_text.data())};
  MDB_val value = {text.size(), const_cast<char*>(text.data())};
  ASSERT_EQ(mdb_put(txn->get(), meta, &key, &value, 0), 0);
  ASSERT_EQ(mdb_txn_commit(txn->release()), 0);
}

TEST_F(LabelFileTest, ANewerVersionIsRefusedNamingBoth) {
  ASSERT_TRUE(RandomLabels(3).Build(path));
  Put(path, kFormatKey, BuildFormatValue(2));
  fs::remove(LmdbLockPath(path));
  const auto file = LabelFile::Open(path);
  EXPECT_EQ(file.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(file.error().message,
            path.string() + ": label format version 2 is newer than this fkdb reads (1): update fkdb");
}

TEST_F(LabelFileTest, AnLmdb1FileIsNamed) {
  ASSERT_TRUE(RandomLabels(3).Build(path));
  std::string bytes = test::ReadBytes(path);
  for (const size_t page : {0u, 4096u}) bytes[page + 20] = 3;
  test::WriteBytes(path, bytes);
  EXPECT_EQ(LabelFile::Open(path).error().message,
            path.string() + ": LMDB data version 3 (LMDB 1.0); this fkdb reads version 1, which LMDB 0.9 writes");
}

TEST_F(LabelFileTest, ReadsOnReadOnlyMediaWithoutALockFile) {
  const RandomLabels set(10);
  ASSERT_TRUE(set.Build(path));
  fs::permissions(path, fs::perms::owner_read);
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
  {
    const auto file = LabelFile::Open(path);
    ASSERT_TRUE(file);
    ExpectHolds(*file, set, 10);
  }
  fs::permissions(folder_, fs::perms::owner_all);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(LabelFileTest, ManyThreadsAndForkedChildrenRead) {
  const RandomLabels set(200);
  ASSERT_TRUE(set.Build(path));
  const auto file = LabelFile::Open(path);
  ASSERT_TRUE(file);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) threads.emplace_back([&] { ExpectHolds(*file, set, 200); });
  }
  const pid_t child = ::fork();
  if (child == 0) {
    bool same = true;
    for (uint64_t i = 0; i < 200; ++i) {
      const auto bytes = file->RecordBytes(i);
      const auto expected = set.Encoded(i);
      same = same && bytes && std::equal(bytes->begin(), bytes->end(), expected.begin(), expected.end());
    }
    ::_exit(same ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  ExpectHolds(*file, set, 200);
}

// A reader of the `.partial` sees whole committed states while the writer goes on.
TEST_F(LabelFileTest, APartialIsReadWhileItGrows) {
  const RandomLabels set(300);
  LabelFileWriterOptions options;
  options.commit_seconds = 0;
  options.block_bytes = 4096;
  auto writer = LabelFileWriter::Open(path, set.recipe, options);
  ASSERT_TRUE(writer);
  std::atomic<bool> done = false;
  const pid_t child = ::fork();
  if (child == 0) {
    LabelFileOptions partial;
    partial.allow_partial = true;
    uint64_t before = 0;
    for (int i = 0; i < 50; ++i) {
      const auto file = LabelFile::Open(PartialPath(path), partial);
      if (!file || file->num_images() < before) ::_exit(1);
      before = file->num_images();
      for (uint64_t n = 0; n < before; ++n) {
        if (!file->RecordBytes(n)) ::_exit(2);
      }
      if (!file->Use()) ::_exit(3);
    }
    ::_exit(0);
  }
  ASSERT_TRUE(set.AppendUntil(&*writer, 300));
  int status = 1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(writer->Finish(set.keys));
}

}  // namespace
}  // namespace fkdb
