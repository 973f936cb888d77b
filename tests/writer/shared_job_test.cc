// SPDX-License-Identifier: Apache-2.0
// Several processes that label one data set, as threads with a store in memory. Real ones: tests/cli/test_ranks.py.
#include "writer/shared_job.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <thread>

#include "db/file_names.h"
#include "db/label_set.h"
#include "tests/writer/fake_job.h"
#include "writer/shards.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;
using test::FakeTeacher;

// What all ranks have in common.
struct Common {
  std::mutex mutex;
  std::map<std::string, std::string> texts;
  std::map<std::string, int64_t> counters;
};

class FakeStore : public SharedStore {
 public:
  FakeStore(Common* common, int rank, int ranks) : common_(common), rank_(rank), ranks_(ranks) {}
  int rank() const override { return rank_; }
  int ranks() const override { return ranks_; }
  Result<void> Set(const std::string& name, const std::string& text) override {
    const std::lock_guard guard(common_->mutex);
    common_->texts[name] = text;
    return {};
  }
  Result<std::optional<std::string>> Find(const std::string& name) override {
    const std::lock_guard guard(common_->mutex);
    const auto at = common_->texts.find(name);
    return at == common_->texts.end() ? std::nullopt : std::optional(at->second);
  }
  Result<int64_t> Add(const std::string& name, int64_t n) override {
    const std::lock_guard guard(common_->mutex);
    return common_->counters[name] += n;
  }

 private:
  Common* common_;
  int rank_, ranks_;
};

// Stops its process, and whoever shares `stop`, after so many batches.
class StoppingTeacher : public FakeTeacher {
 public:
  StoppingTeacher(fs::path file, int batches, std::atomic<bool>* stop) : FakeTeacher(std::move(file)), left_(batches), stop_(stop) {}
  Result<void> Forward(const float* input, int64_t n, float* output) const override {
    if (--left_ < 0) *stop_ = true;
    return FakeTeacher::Forward(input, n, output);
  }

 private:
  mutable std::atomic<int> left_;
  std::atomic<bool>* stop_;
};

// Two networks of which one fails once the other has labelled two groups, and is waited for.
struct Failure {
  std::atomic<int> batches_left = 8;
  std::atomic<bool> may_fail = false, failed = false;
};
class WaitingTeacher : public FakeTeacher {
 public:
  WaitingTeacher(fs::path file, Failure* failure) : FakeTeacher(std::move(file)), failure_(failure) {}
  Result<void> Forward(const float* input, int64_t n, float* output) const override {
    if (--failure_->batches_left < 0) {
      Raise(&failure_->may_fail);
      failure_->failed.wait(false);
    }
    return FakeTeacher::Forward(input, n, output);
  }
  static void Raise(std::atomic<bool>* flag) {
    *flag = true;
    flag->notify_all();
  }

 private:
  Failure* failure_;
};
class FailingTeacher : public FakeTeacher {
 public:
  FailingTeacher(fs::path file, Failure* failure) : FakeTeacher(std::move(file)), failure_(failure) {}
  Result<void> Forward(const float*, int64_t, float*) const override {
    failure_->may_fail.wait(false);
    WaitingTeacher::Raise(&failure_->failed);
    return Fail(ErrorCode::kModel, "the network failed");
  }

 private:
  Failure* failure_;
};

class SharedJobTest : public test::LabelJob {
 protected:
  SharedJobTest() { options.file.commit_seconds = 0; }

  using Outcomes = std::vector<Result<LabelJobResult>>;
  // `options_of(rank)`: each one's own.
  Outcomes RunRanks(int ranks, const std::function<LabelJobOptions(int)>& options_of, const std::function<const Teacher&(int)>& teacher_of) {
    Common common;
    Outcomes outcomes(ranks, Result<LabelJobResult>());
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        FakeStore store(&common, rank, ranks);
        const LabelJobOptions mine = options_of(rank);
        outcomes[rank] = LabelImagesTogether(data, teacher_of(rank), out, mine, shared, &store);
      });
    }
    threads.clear();
    return outcomes;
  }
  Outcomes RunRanks(int ranks) {
    return RunRanks(ranks, [&](int) { return options; }, [&](int) -> const Teacher& { return teacher; });
  }
  std::string DigestOf(const Outcomes& outcomes) {
    for (const auto& outcome : outcomes) {
      if (!outcome) return outcome.error().message;
      if (outcome->interrupted) return "interrupted";
    }
    return outcomes[0]->manifest.digest;
  }
  // Of a job that was interrupted.
  void WriteJob(const std::string& replaces = "", int first_shard = 0) {
    test::WriteBytes(JobPath(out), "{\"recipe\":" + ToJson(*PlanRecipe(data, teacher, options)) + ",\"replaces\":\"" + replaces + "\",\"first_shard\":" +
                                       std::to_string(first_shard) + "}");
  }
  std::vector<std::string> Left() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(out.parent_path())) {
      const std::string name = entry.path().filename();
      if (name.starts_with("many")) names.push_back(name);
    }
    std::ranges::sort(names);
    return names;
  }

  fs::path out = Path("many.fkdb");
  SharedJobOptions shared;
};

TEST_F(SharedJobTest, AnyNumberOfProcessesLabelsTheSame) {
  const std::string expected = Digest("one.fkdb");
  for (const int ranks : {1, 2, 4, 13}) {
    options.file.overwrite = ranks != 1;
    options.threads = 1 + ranks % 3;
    EXPECT_EQ(DigestOf(RunRanks(ranks)), expected) << ranks << " ranks";
    EXPECT_EQ(Left(), std::vector<std::string>{"many.fkdb"});
  }
  // And it says of itself what the one of one process does.
  const auto one = LabelSet::Open(Path("one.fkdb")), many = LabelSet::Open(out);
  ASSERT_TRUE(one && many);
  EXPECT_EQ(RecipeDifference(one->manifest(), many->manifest()), "");
}

TEST_F(SharedJobTest, ShardsBehindAnIndexAreTheSameLabelSet) {
  const std::string expected = Digest("one.fkdb");
  shared.collection = true;
  EXPECT_EQ(DigestOf(RunRanks(3)), expected);
  const auto set = LabelSet::Open(out);
  ASSERT_TRUE(set) << set.error().message;
  EXPECT_TRUE(set->is_collection());
  EXPECT_EQ(set->num_images(), data.size());
  EXPECT_EQ(Left().size(), 1 + set->files().size());  // no `.job`
}

TEST_F(SharedJobTest, WhatKilledProcessesCommittedIsKeptWhoeverGoesOn) {
  const std::string expected = Digest("one.fkdb");
  const uint64_t all_batches = teacher.sizes_.size();
  size_t batches = 0;
  // Stopped after ever more batches, each time with another number of processes, until it is done.
  for (int attempt = 0;; ++attempt) {
    ASSERT_LT(attempt, 60);
    std::atomic<bool> stop = false;
    const int ranks = 1 + attempt % 3;
    std::vector<std::unique_ptr<StoppingTeacher>> teachers;
    for (int rank = 0; rank < ranks; ++rank) teachers.push_back(std::make_unique<StoppingTeacher>(teacher.file(), 4 + attempt % 2, &stop));
    options.file.resume = attempt > 0;
    options.stop = &stop;
    const auto outcomes = RunRanks(ranks, [&](int) { return options; }, [&](int rank) -> const Teacher& { return *teachers[rank]; });
    for (const auto& t : teachers) batches += t->sizes_.size();
    const std::string digest = DigestOf(outcomes);
    if (digest == expected) break;
    ASSERT_EQ(digest, "interrupted");
    EXPECT_TRUE(fs::exists(JobPath(out)));
  }
  EXPECT_EQ(Left(), std::vector<std::string>{"many.fkdb"});
  EXPECT_GT(batches, all_batches);  // it was stopped indeed
}

// A shard ends in the middle of a group, where a kill fell between two commits.
TEST_F(SharedJobTest, AHalfWrittenGroupIsCompletedWithItsOwnBatches) {
  const std::string expected = Digest("one.fkdb");
  // One process is stopped, and only 11 of its images are kept: a group and a part of the next.
  const auto whole = LabelSet::Open(Path("one.fkdb"));
  ASSERT_TRUE(whole);
  const auto recipe = PlanRecipe(data, teacher, options);
  {
    auto writer = LabelFileWriter::Open(out, *recipe, {});
    for (uint64_t i = 0; i < 11; ++i) {
      const auto bytes = whole->RecordBytes(i);
      ASSERT_TRUE(writer->Append({bytes->begin(), bytes->end()}));
    }
    ASSERT_TRUE(writer->Flush());
  }
  options.file.resume = true;
  teacher.sizes_.clear();
  EXPECT_EQ(DigestOf(RunRanks(2)), expected);
  EXPECT_EQ(teacher.sizes_.size(), 6u * 3 + 2);  // all groups but the first
}

TEST_F(SharedJobTest, AProcessWithOtherOptionsStopsAll) {
  const auto outcomes = RunRanks(
      3,
      [&](int rank) {
        LabelJobOptions mine = options;
        if (rank == 2) mine.spec.top_k = 3;
        return mine;
      },
      [&](int) -> const Teacher& { return teacher; });
  ASSERT_FALSE(outcomes[2]);
  EXPECT_EQ(outcomes[2].error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(outcomes[2].error().message, "rank 2 was asked for something else than rank 0: labels.top_k: 2 of rank 0, 3 of this process");
  for (const int rank : {0, 1}) {
    ASSERT_FALSE(outcomes[rank]);
    EXPECT_EQ(outcomes[rank].error().code, ErrorCode::kIncomplete);
    EXPECT_NE(outcomes[rank].error().message.find("rank 2 was asked"), std::string::npos) << outcomes[rank].error().message;
  }
  EXPECT_FALSE(fs::exists(out));
  options.file.resume = true;
  EXPECT_EQ(DigestOf(RunRanks(2)), Digest("one.fkdb"));
}

TEST_F(SharedJobTest, AProcessThatFailsStopsAllAndNothingIsLost) {
  Failure failure;
  const WaitingTeacher waiting(teacher.file(), &failure);
  const FailingTeacher failing(teacher.file(), &failure);
  options.threads = 2;
  const auto outcomes = RunRanks(2, [&](int) { return options; }, [&](int rank) -> const Teacher& { return rank == 1 ? static_cast<const Teacher&>(failing) : waiting; });
  ASSERT_FALSE(outcomes[1]);
  EXPECT_EQ(outcomes[1].error().code, ErrorCode::kModel);
  ASSERT_FALSE(outcomes[0]);
  EXPECT_EQ(outcomes[0].error().code, ErrorCode::kIncomplete);
  EXPECT_NE(outcomes[0].error().message.find("rank 1: the network failed"), std::string::npos) << outcomes[0].error().message;
  const auto shards = FindShards(out);
  ASSERT_TRUE(shards);
  EXPECT_EQ(shards->finished.size() + shards->partial.size(), 1u);  // what rank 0 had labelled
  options.file.resume = true;
  EXPECT_EQ(DigestOf(RunRanks(2)), Digest("one.fkdb"));
}

TEST_F(SharedJobTest, AnotherRecipeOrDataSetCannotGoOn) {
  std::atomic<bool> stop = false;
  const StoppingTeacher stopping(teacher.file(), 6, &stop);
  options.stop = &stop;
  ASSERT_EQ(DigestOf(RunRanks(2, [&](int) { return options; }, [&](int) -> const Teacher& { return stopping; })), "interrupted");
  options.stop = nullptr;
  EXPECT_NE(DigestOf(RunRanks(2)).find("--resume continues it"), std::string::npos);
  options.file.resume = true;
  options.augmentation.seed = 5;
  EXPECT_NE(DigestOf(RunRanks(2)).find("cannot resume with another recipe: augmentation.seed"), std::string::npos);
  options.augmentation.seed = 0;
  const std::string one = Digest("many.fkdb");
  EXPECT_NE(one.find("several processes began this label set"), std::string::npos) << one;
  EXPECT_EQ(DigestOf(RunRanks(1)), Digest("one.fkdb"));
}

TEST_F(SharedJobTest, TwoJobsOnOneOutput) {
  const auto lock = LabelFileWriter::Open(out, *PlanRecipe(data, teacher, options), {});
  ASSERT_TRUE(lock);
  options.file.overwrite = true;
  const auto outcomes = RunRanks(2);
  ASSERT_FALSE(outcomes[0]);
  EXPECT_EQ(outcomes[0].error().code, ErrorCode::kLocked);
  ASSERT_FALSE(outcomes[1]);
  EXPECT_EQ(outcomes[1].error().code, ErrorCode::kIncomplete);
}

// Killed between the last step that matters and the cleaning up.
TEST_F(SharedJobTest, AfterItWasPublishedOnlyTheLeftoversAreRemoved) {
  const std::string expected = DigestOf(RunRanks(2));
  WriteJob();
  fs::copy(out, ShardPath(out, 4));
  options.file.resume = true;
  teacher.sizes_.clear();
  EXPECT_EQ(DigestOf(RunRanks(2)), expected);
  EXPECT_TRUE(teacher.sizes_.empty());
  EXPECT_EQ(Left(), std::vector<std::string>{"many.fkdb"});
}

// Killed while a shard was finished: its manifest is already that of its own images.
TEST_F(SharedJobTest, AShardThatWasFinishedAndNotPublishedIsTaken) {
  shared.collection = true;
  const std::string expected = DigestOf(RunRanks(3));
  const auto shards = FindShards(out);
  ASSERT_TRUE(shards && !shards->finished.empty());
  for (const uint32_t number : shards->finished) fs::rename(ShardPath(out, number), PartialPath(ShardPath(out, number)));
  fs::remove(out);
  WriteJob();
  shared.collection = false;
  options.file.resume = true;
  teacher.sizes_.clear();
  EXPECT_EQ(DigestOf(RunRanks(2)), expected);
  EXPECT_TRUE(teacher.sizes_.empty());
  EXPECT_EQ(Left(), std::vector<std::string>{"many.fkdb"});
}

// The old label set is no result of the job that is to replace it, though it has the same recipe; and it stays until there is one.
TEST_F(SharedJobTest, WhatIsToBeReplacedStaysUntilItIs) {
  shared.collection = true;
  const std::string old = DigestOf(RunRanks(2));
  teacher.drift = 0.5;
  std::atomic<bool> stop = false;
  StoppingTeacher stopping(teacher.file(), 6, &stop);
  stopping.drift = 0.5;
  options.file.overwrite = true;
  options.stop = &stop;
  ASSERT_EQ(DigestOf(RunRanks(2, [&](int) { return options; }, [&](int) -> const Teacher& { return stopping; })), "interrupted");
  EXPECT_EQ(LabelSet::Open(out)->manifest().digest, old);
  options.stop = nullptr;
  options.file.resume = true;  // as after a launcher's restart
  shared.collection = false;
  const std::string made = DigestOf(RunRanks(3));
  EXPECT_TRUE(made.starts_with("sha256")) << made;
  EXPECT_NE(made, old);
  EXPECT_EQ(made, Digest("one.fkdb"));
  EXPECT_EQ(Left(), std::vector<std::string>{"many.fkdb"});
}

TEST_F(SharedJobTest, ShardsThatNobodyMentionedAreNotThrownAway) {
  shared.collection = true;
  ASSERT_TRUE(DigestOf(RunRanks(2)).starts_with("sha256"));
  fs::rename(out, Path("v1.fkdb"));
  EXPECT_NE(DigestOf(RunRanks(2)).find("a shard of another label set of this name is there"), std::string::npos);
  options.file.resume = true;  // there is nothing to resume
  EXPECT_EQ(DigestOf(RunRanks(2)), LabelSet::Open(Path("v1.fkdb"))->manifest().digest);
  EXPECT_TRUE(LabelSet::Open(Path("v1.fkdb")));
}

// A process that had claimed groups is gone, and nobody noticed.
TEST_F(SharedJobTest, ALabelSetThatLacksImagesIsNotPublished) {
  Common common;
  common.counters["claimed"] = 2;
  FakeStore store(&common, 0, 1);
  const auto outcome = LabelImagesTogether(data, teacher, out, options, shared, &store);
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, ErrorCode::kIncomplete);
  EXPECT_NE(outcome.error().message.find("its shards have 45 of 61 images"), std::string::npos) << outcome.error().message;
  EXPECT_FALSE(fs::exists(out));
  options.file.resume = true;
  EXPECT_EQ(DigestOf(RunRanks(1)), Digest("one.fkdb"));
}

TEST_F(SharedJobTest, AWrongFlagDoesNotTouchWhatOneProcessBegan) {
  std::atomic<bool> stop = false;
  const StoppingTeacher stopping(teacher.file(), 9, &stop);
  options.stop = &stop;
  ASSERT_TRUE(LabelImages(data, stopping, out, options)->interrupted);
  options.stop = nullptr;
  options.file.resume = true;
  options.augmentation.seed = 4;
  EXPECT_NE(DigestOf(RunRanks(2)).find("cannot resume with another recipe: augmentation.seed"), std::string::npos);
  EXPECT_EQ(Left(), std::vector<std::string>{"many.fkdb.partial"});
  options.augmentation.seed = 0;
  EXPECT_EQ(DigestOf(RunRanks(2)), Digest("one.fkdb"));
}

TEST_F(SharedJobTest, AnIndexThatWasPublishedKeepsItsShardsWhateverIsAskedNow) {
  shared.collection = true;
  const std::string expected = DigestOf(RunRanks(2));
  WriteJob();
  shared.collection = false;
  options.file.resume = true;
  EXPECT_EQ(DigestOf(RunRanks(2)), expected);
  EXPECT_TRUE(LabelSet::Open(out));
}

TEST_F(SharedJobTest, AShardOfSomethingElseIsNotTaken) {
  options.augmentation.seed = 9;
  ASSERT_TRUE(Run("many.shard-00003.fkdb"));
  options.augmentation.seed = 0;
  WriteJob();
  options.file.resume = true;
  const std::string what = DigestOf(RunRanks(2));
  EXPECT_NE(what.find("many.shard-00003.fkdb: cannot resume with another recipe: augmentation.seed"), std::string::npos) << what;
  options.file = {};
  options.file.overwrite = true;
  EXPECT_EQ(DigestOf(RunRanks(2)), Digest("one.fkdb"));
}

TEST_F(SharedJobTest, ASkippedImageIsOneInAnyShard) {
  data.broken = {3, 30, 60};
  options.max_bad = kAnyBad;
  const std::string one = Digest("one.fkdb");
  options.max_bad = 2;  // of all processes together
  EXPECT_FALSE(DigestOf(RunRanks(3)).starts_with("sha256"));
  options.file.overwrite = true;
  options.max_bad = 3;
  EXPECT_EQ(DigestOf(RunRanks(3)), one);
}

TEST_F(SharedJobTest, OperationsOnCropsAreDrawnForTheCropWhoeverLabelsIt) {
  const std::string plain = Digest("plain.fkdb");
  AugmentPolicy& policy = options.augmentation.policy;
  policy.randaugment_ops = 2;
  policy.erase_probability = 0.5;
  policy.mixup_alpha = policy.cutmix_alpha = 1;
  data.broken = {3};  // and what would be mixed with it is not
  options.max_bad = kAnyBad;
  const std::string one = Digest("one.fkdb");
  EXPECT_NE(one, plain);
  options.threads = 2;
  EXPECT_EQ(DigestOf(RunRanks(3)), one);
}

TEST_F(SharedJobTest, LabelsForStoredCropsAndMoreCropsSayWhose) {
  const std::string base = Digest("base.fkdb");
  options.boxes_from = Path("base.fkdb");
  EXPECT_EQ(DigestOf(RunRanks(2)), Digest("boxes.fkdb"));
  EXPECT_EQ(LabelSet::Open(out)->manifest().boxes_from, base);
  options.append_to = std::exchange(options.boxes_from, {});
  options.file.overwrite = true;
  EXPECT_EQ(DigestOf(RunRanks(2)), Digest("more.fkdb"));
  EXPECT_EQ(LabelSet::Open(out)->manifest().extends, base);
}

}  // namespace
}  // namespace fkdb
