// SPDX-License-Identifier: Apache-2.0
#include "writer/shared_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "db/file_names.h"
#include "db/label_set.h"
#include "db/lock_file.h"
#include "db/publish.h"
#include "db/rewrite.h"
#include "writer/shards.h"

namespace fkdb {
namespace {

namespace fs = std::filesystem;

// What the store holds.
constexpr const char* kJoined = "joined";        // processes that have come
constexpr const char* kPlan = "plan";            // rank 0's, to all
constexpr const char* kFailure = "failure";      // of the process that failed
constexpr const char* kClaimed = "claimed";      // groups, of those to label
constexpr const char* kCrops = "crops";          // labelled by all
constexpr const char* kImages = "images";        // written by all
constexpr const char* kBad = "bad";              // images that could not be read
constexpr const char* kFinished = "finished";    // processes whose shard is
constexpr const char* kPublished = "published";  // the label set is there
constexpr const char* kHeard = "heard";          // and a rank: it has told of a failure, or heard of one
constexpr const char* kGone = "gone";            // processes that know

constexpr uint64_t kMostGroupsAClaim = 64;
constexpr auto kPatience = std::chrono::milliseconds(20);  // between two looks at the store
constexpr double kBetweenReports = 1;                      // seconds
constexpr double kLongestToHear = 30;                      // seconds
constexpr double kLongestToJoin = 300;                     // seconds, after which nobody waits for one that has not come

// What rank 0 says before the others begin.
struct Plan {
  std::string recipe;  // manifest as JSON
  uint64_t max_bad = 0;
  bool collection = false;
  uint32_t next_shard = 0;
  uint64_t images_done = 0;
  std::vector<uint64_t> groups;                // to label, ascending
  std::unordered_set<uint64_t> labelled;       // images of these groups that some shard has

  std::string ToText() const {
    nlohmann::json ranges = nlohmann::json::array();  // of consecutive groups
    for (size_t i = 0; i < groups.size(); ++i) {
      if (i == 0 || groups[i] != groups[i - 1] + 1) ranges.push_back({groups[i], 0});
      ranges.back()[1] = groups[i] + 1;
    }
    const nlohmann::json json = {{"recipe", recipe}, {"max_bad", max_bad}, {"collection", collection}, {"next_shard", next_shard},
                                 {"images_done", images_done}, {"groups", ranges}, {"labelled", labelled}};
    return json.dump();
  }
  static Plan Parse(const std::string& text) {  // from our own kind
    const auto json = nlohmann::json::parse(text);
    Plan plan;
    plan.recipe = json["recipe"];
    plan.max_bad = json["max_bad"];
    plan.collection = json["collection"];
    plan.next_shard = json["next_shard"];
    plan.images_done = json["images_done"];
    for (const auto& range : json["groups"]) {
      for (uint64_t group = range[0]; group < range[1]; ++group) plan.groups.push_back(group);
    }
    for (const uint64_t image : json["labelled"]) plan.labelled.insert(image);
    return plan;
  }
};

// Hands out the plan's groups: large pieces first, single groups at the end, so that all processes end together.
class Claims {
 public:
  Claims(SharedStore* store, const std::vector<uint64_t>& groups) : store_(store), groups_(groups) {}

  Result<std::optional<uint64_t>> Next() {
    if (next_ == end_ && end_ < groups_.size()) {
      const uint64_t share = (groups_.size() - end_) / (4 * static_cast<uint64_t>(store_->ranks()));
      const uint64_t wanted = std::clamp<uint64_t>(share, 1, kMostGroupsAClaim);
      FKDB_ASSIGN(const int64_t claimed, store_->Add(kClaimed, static_cast<int64_t>(wanted)));
      end_ = std::min<uint64_t>(static_cast<uint64_t>(claimed), groups_.size());
      next_ = std::min<uint64_t>(static_cast<uint64_t>(claimed) - wanted, groups_.size());
    }
    if (next_ == end_) return std::optional<uint64_t>();
    return std::optional(groups_[next_++]);
  }

 private:
  SharedStore* store_;
  const std::vector<uint64_t>& groups_;
  uint64_t next_ = 0, end_ = 0;  // of what is claimed
};

// What `.job` says while a job is not finished.
struct JobFile {
  std::string recipe;        // manifest as JSON
  std::string replaces;      // digest of the label set that was there before; or empty
  uint32_t first_shard = 0;  // its shards have this number and higher ones

  std::string ToText() const {
    return nlohmann::ordered_json{{"recipe", nlohmann::ordered_json::parse(recipe)}, {"replaces", replaces}, {"first_shard", first_shard}}.dump(2);
  }
  static Result<JobFile> Read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    const auto json = nlohmann::ordered_json::parse(in, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("recipe") || !json.value("replaces", nlohmann::ordered_json()).is_string() ||
        !json.value("first_shard", nlohmann::ordered_json()).is_number_unsigned()) {
      return Fail(ErrorCode::kCorruption, fmt::format("{}: it does not say which labelling was interrupted; --overwrite starts anew", path.string()));
    }
    return JobFile{json["recipe"].dump(), json["replaces"], json["first_shard"]};
  }
};

class SharedJob {
 public:
  SharedJob(const DataSet& data, const Ensemble& teachers, const fs::path& out, const LabelJobOptions& options, const SharedJobOptions& shared,
            SharedStore* store)
      : data_(data), teachers_(teachers), out_(out), options_(options), shared_(shared), store_(store) {}

  Result<LabelJobResult> Run() {
    FKDB_TRY(store_->Add(kJoined, 1));
    FKDB_ASSIGN(opened_, OpenStoredCrops(options_));
    FKDB_ASSIGN(recipe_, PlanRecipe(data_, teachers_, options_, opened_.crops()));
    FKDB_ASSIGN(const GroupRun run, GroupRun::Make(data_, teachers_, recipe_, opened_.crops()));
    std::optional<LockFile> lock;  // of the job: that of the output belongs to who writes it
    if (IsFirst()) {
      FKDB_TRY(ReadJob());
      FKDB_TRY(CheckOutput(out_, options_.file.resume, overwrites_ || published_));
      FKDB_ASSIGN(lock, LockFile::Acquire(WriterLockPath(JobPath(out_))));
      FKDB_TRY(MakePlan(run));
      FKDB_TRY(store_->Set(kPlan, plan_.ToText()));
    } else {
      FKDB_ASSIGN(const bool planned, WaitFor([&]() -> Result<bool> {
        FKDB_ASSIGN(const auto text, store_->Find(kPlan));
        if (text) plan_ = Plan::Parse(*text);
        return text.has_value();
      }));
      if (!planned) return Interrupted();
      FKDB_TRY(ComparePlan());
    }
    FKDB_ASSIGN(const bool labelled, Label(run));
    if (!labelled) return Interrupted();
    FKDB_TRY(store_->Add(kFinished, 1));
    if (IsFirst()) return Publish();
    FKDB_ASSIGN(const bool published, WaitFor([&]() -> Result<bool> {
      FKDB_ASSIGN(const auto text, store_->Find(kPublished));
      return text.has_value();
    }));
    if (!published) return Interrupted();
    FKDB_TRY(store_->Add(kGone, 1));
    return LabelJobResult{recipe_, false, progress_.images, progress_};
  }

 private:
  bool IsFirst() const { return store_->rank() == 0; }
  bool Stopped() const { return options_.stop && *options_.stop; }

  // Polls until `ready`; false if this process is told to stop. Errors: `ready`'s; Incomplete (another process failed).
  Result<bool> WaitFor(const std::function<Result<bool>()>& ready) {
    for (;;) {
      FKDB_ASSIGN(const bool is_ready, ready());
      if (is_ready) return true;
      FKDB_TRY(CheckOthers());
      if (Stopped()) return false;
      std::this_thread::sleep_for(kPatience);
    }
  }

  Result<void> CheckOthers() {
    FKDB_ASSIGN(const auto failure, store_->Find(kFailure));
    if (!failure) return {};
    return Fail(ErrorCode::kIncomplete, fmt::format("stopped, as another process failed ({}); nothing is lost, --resume continues", *failure));
  }

  LabelJobResult Interrupted() {
    LabelJobResult result;
    result.interrupted = true;
    result.images_written = progress_.images;
    result.progress = progress_;
    return result;
  }

  // What an interrupted job of this output left to know.
  Result<void> ReadJob() {
    std::error_code ec;
    overwrites_ = options_.file.overwrite;
    if (!options_.file.resume || !fs::exists(JobPath(out_), ec)) return {};
    FKDB_ASSIGN(job_, JobFile::Read(JobPath(out_)));
    resumes_ = true;
    overwrites_ |= !job_.replaces.empty();
    // A process may have been killed after it had published the label set, and before it had cleaned up.
    const auto set = LabelSet::Open(out_);
    published_ = set && set->manifest().digest != job_.replaces && RecipeDifference(set->manifest(), recipe_).empty();
    return {};
  }

  Result<void> MakePlan(const GroupRun& run) {
    FKDB_ASSIGN(const LockFile alone, LockFile::Acquire(WriterLockPath(out_)));
    FKDB_TRY(BeginJob());
    std::vector<bool> done(data_.size(), published_);
    if (!published_) {
      FKDB_ASSIGN(done, GatherShards(out_, job_.first_shard, recipe_, data_.keys()));
    }
    FKDB_ASSIGN(const ShardNames shards, FindShards(out_));
    plan_.recipe = ToJson(recipe_);
    plan_.max_bad = options_.max_bad;
    plan_.collection = shared_.collection;
    plan_.next_shard = std::max(job_.first_shard, shards.next());
    plan_.images_done = static_cast<uint64_t>(std::ranges::count(done, true));
    for (uint64_t group = 0; group < run.num_groups(); ++group) {
      const uint64_t first = group * run.group_size(), end = first + run.images_of(group, group + 1);
      std::vector<uint64_t> labelled;
      for (uint64_t i = first; i < end; ++i) {
        if (done[i]) labelled.push_back(i);
      }
      if (labelled.size() == end - first) continue;
      plan_.groups.push_back(group);
      plan_.labelled.insert(labelled.begin(), labelled.end());
    }
    return {};
  }

  // Checks that the interrupted job is this one, or begins another.
  Result<void> BeginJob() {
    const fs::path path = JobPath(out_), partial = PartialPath(out_);
    std::error_code ec;
    if (resumes_) {
      FKDB_ASSIGN(const Manifest stored, ParseManifest(job_.recipe));
      return CheckRecipe(path, stored);
    }
    FKDB_ASSIGN(const ShardNames left, FindShards(out_));
    const bool fresh = !options_.file.resume;
    if (fresh && !options_.file.overwrite && left.next() > 0) {
      const uint32_t first = left.finished.empty() ? left.partial[0] : left.finished[0];
      return Fail(ErrorCode::kAlreadyExists, fmt::format("{}: a shard of another label set of this name is there; choose another name, or --overwrite to replace it",
                                                         ShardPath(out_, first).string()));
    }
    job_.recipe = ToJson(recipe_);
    // What is there under the final name stays until this job has made something to replace it, its shards too.
    job_.first_shard = left.next();
    if (const auto old = LabelSet::Open(out_)) job_.replaces = old->manifest().digest;
    if (fresh) {
      for (const uint32_t number : left.partial) fs::remove(PartialPath(ShardPath(out_, number)), ec);
      fs::remove(partial, ec);
    } else if (!left.partial.empty()) {
      job_.first_shard = left.partial[0];  // what one process began, and was renamed by one that was killed then
    } else if (fs::exists(partial, ec)) {
      // What one process began becomes the first shard.
      FKDB_TRY(CheckPartial(partial));
      fs::rename(partial, PartialPath(ShardPath(out_, job_.first_shard)), ec);
      if (ec) return Fail(ErrorCode::kIoError, fmt::format("{}: cannot rename it: {}", partial.string(), ec.message()));
    }
    return PublishText(path, job_.ToText(), /*replace=*/true);
  }

  Result<void> CheckPartial(const fs::path& partial) const {
    auto set = LabelSet::Open(partial, {.allow_partial = true});
    if (!set) return Fail(set.error());
    const Manifest stored = set->manifest();
    set = Fail(ErrorCode::kIncomplete, "closed");  // and then what LMDB leaves beside it
    std::error_code ec;
    fs::remove(LmdbLockPath(partial), ec);
    return CheckRecipe(partial, stored);
  }

  Result<void> CheckRecipe(const fs::path& path, const Manifest& stored) const {
    const std::string what = RecipeDifference(stored, recipe_);
    if (what.empty()) return {};
    const bool other_images = stored.data_set != recipe_.data_set;
    return Fail(other_images ? ErrorCode::kMismatch : ErrorCode::kInvalidArgument,
                fmt::format("{}: cannot resume with another {}: {}", path.string(), other_images ? "data set" : "recipe", what));
  }

  Result<void> ComparePlan() {
    FKDB_ASSIGN(const Manifest first, ParseManifest(plan_.recipe));
    std::string what = RecipeDifference(first, recipe_, {"of rank 0", "of this process"});
    if (what.empty() && plan_.max_bad != options_.max_bad) what = "another --max-bad or --skip-bad";
    if (what.empty() && plan_.collection != shared_.collection) what = "--collection of one of them alone";
    if (!what.empty()) return Fail(ErrorCode::kInvalidArgument, fmt::format("rank {} was asked for something else than rank 0: {}", store_->rank(), what));
    std::error_code ec;
    if (fs::exists(JobPath(out_), ec)) return {};
    return Fail(ErrorCode::kNotFound, fmt::format("{}: rank {} does not see what rank 0 wrote there: the output must be on a file system that all processes share",
                                                  JobPath(out_).string(), store_->rank()));
  }

  // False if it was stopped.
  Result<bool> Label(const GroupRun& run) {
    const auto number = plan_.next_shard + static_cast<uint32_t>(store_->rank());
    ShardWriter shard(ShardPath(out_, number), recipe_, data_.keys(), options_.file);
    Claims claims(store_, plan_.groups);
    std::atomic<bool> stop = false;
    Result<void> others;
    all_crops_ = 0;
    for (const uint64_t group : plan_.groups) all_crops_ += run.images_of(group, group + 1) * run.crops();
    GroupRun::Options how{options_.max_bad, options_.threads, &stop, {}};
    how.progress = [&] {
      if (Stopped()) stop = true;
      if (elapsed_.seconds() - reported_ < kBetweenReports) return;
      others = CheckOthers();
      if (others) others = Report(shard.num_images());
      if (!others) stop = true;
    };
    const auto append = [&](uint64_t group, EncodedRecords records) -> Result<void> {
      for (uint64_t i = 0; i < records.size(); ++i) {
        const uint64_t image = group * run.group_size() + i;
        if (!plan_.labelled.contains(image)) FKDB_TRY(shard.Append(image, std::move(records[i])));
      }
      return {};
    };
    Result<void> outcome = run.Run(how, [&] { return claims.Next(); }, append, &counters_);
    if (outcome) outcome = std::move(others);
    if (outcome && !stop) {
      FKDB_TRY(Report(shard.num_images()));
      FKDB_TRY(shard.Finish());
      return true;
    }
    const Result<void> kept = shard.Flush();
    FKDB_TRY(outcome);
    FKDB_TRY(kept);
    static_cast<void>(Report(shard.num_images()));
    return false;
  }

  // Tells all how far this process is, and asks how far all are.
  Result<void> Report(uint64_t images) {
    reported_ = elapsed_.seconds();
    progress_.Take(counters_);
    const uint64_t crops = progress_.crops, bad = progress_.bad;
    FKDB_ASSIGN(const int64_t all_crops, store_->Add(kCrops, static_cast<int64_t>(crops - told_crops_)));
    FKDB_ASSIGN(const int64_t all_bad, store_->Add(kBad, static_cast<int64_t>(bad - told_bad_)));
    FKDB_ASSIGN(const int64_t all_images, store_->Add(kImages, static_cast<int64_t>(images - told_images_)));
    told_crops_ = crops;
    told_bad_ = bad;
    told_images_ = images;
    progress_.images = plan_.images_done + static_cast<uint64_t>(all_images);
    progress_.all_images = data_.size();
    progress_.crops = static_cast<uint64_t>(all_crops);
    progress_.all_crops = all_crops_;
    progress_.bad = static_cast<uint64_t>(all_bad);
    progress_.seconds = elapsed_.seconds();
    if (options_.progress) options_.progress(progress_);
    if (progress_.bad <= options_.max_bad) return {};
    return Fail(ErrorCode::kIoError, fmt::format("{} images of this job's processes cannot be read, --max-bad {} allows fewer; what is labelled is kept", all_bad, options_.max_bad));
  }

  // Rank 0, at the end: the shards become the label set.
  Result<LabelJobResult> Publish() {
    FKDB_ASSIGN(const bool finished, WaitFor([&]() -> Result<bool> {
      FKDB_TRY(Report(told_images_));
      FKDB_ASSIGN(const int64_t joined, store_->Add(kJoined, 0));
      if (joined < store_->ranks() && elapsed_.seconds() > kLongestToJoin) {
        return Fail(ErrorCode::kIncomplete, fmt::format("{} of {} processes have never come, which the launcher may know more of; nothing is lost, --resume continues",
                                                        store_->ranks() - joined, store_->ranks()));
      }
      FKDB_ASSIGN(const int64_t finished, store_->Add(kFinished, 0));
      return finished == store_->ranks();
    }));
    if (!finished) return Interrupted();
    LabelJobResult result;
    bool keeps_shards = shared_.collection;
    if (published_) {
      FKDB_ASSIGN(const LabelSet set, LabelSet::Open(out_));
      result.manifest = set.manifest();
      keeps_shards = set.is_collection();
    } else {
      FKDB_ASSIGN(const ShardNames shards, FindShards(out_, job_.first_shard));
      std::vector<fs::path> paths;
      uint64_t images = 0;
      for (const uint32_t number : shards.finished) {
        paths.push_back(ShardPath(out_, number));
        FKDB_ASSIGN(const LabelSet shard, LabelSet::Open(paths.back()));
        images += shard.num_images();
      }
      if (images != data_.size()) {
        return Fail(ErrorCode::kIncomplete, fmt::format("{}: its shards have {} of {} images, though all were given out: a process was lost; nothing else is, --resume continues",
                                                        out_.string(), images, data_.size()));
      }
      RewriteOptions rewrite;
      rewrite.file = options_.file;
      rewrite.file.resume = true;  // a merge that was interrupted
      rewrite.file.overwrite = overwrites_;
      rewrite.provenance = options_.provenance;
      rewrite.stop = options_.stop;
      FKDB_ASSIGN(result.manifest, (shared_.collection ? CollectLabelSets : MergeLabelSets)(paths, out_, rewrite));
    }
    // From here on nothing that fails makes the label set less finished.
    if (overwrites_) RemoveShards(out_, 0, job_.first_shard);  // of what was there before
    if (!keeps_shards) RemoveShards(out_, job_.first_shard);
    result.images_written = result.manifest.num_images;
    result.progress = progress_;
    static_cast<void>(store_->Set(kPublished, result.manifest.digest));
    // This process may be the one that holds the store: it stays until the others have read that.
    const Elapsed waited;
    static_cast<void>(WaitFor([&]() -> Result<bool> {
      FKDB_ASSIGN(const int64_t gone, store_->Add(kGone, 0));
      return gone == store_->ranks() - 1 || waited.seconds() > 10;
    }));
    std::error_code ec;
    fs::remove(JobPath(out_), ec);
    return result;
  }

  const DataSet& data_;
  const Ensemble& teachers_;
  const fs::path& out_;
  const LabelJobOptions& options_;
  const SharedJobOptions& shared_;
  SharedStore* store_;

  OpenedCrops opened_;
  Manifest recipe_;
  Plan plan_;
  // Of rank 0: the job, whether an interrupted one goes on, whether what it makes replaces something, whether it has done so.
  JobFile job_;
  bool resumes_ = false, overwrites_ = false, published_ = false;
  Elapsed elapsed_;
  double reported_ = -kBetweenReports;
  LabelCounters counters_;
  uint64_t told_crops_ = 0, told_images_ = 0, told_bad_ = 0, all_crops_ = 0;
  LabelProgress progress_;  // of all
};

}  // namespace

Result<LabelJobResult> LabelImagesTogether(const DataSet& data, const Ensemble& teachers, const fs::path& out, const LabelJobOptions& options,
                                           const SharedJobOptions& shared, SharedStore* store) {
  auto done = SharedJob(data, teachers, out, options, shared, store).Run();
  if (!done) TellFailure(done.error(), store);
  return done;
}

void TellFailure(const Error& error, SharedStore* store) {
  const auto told = store->Find(kFailure);
  if (told && !*told) static_cast<void>(store->Set(kFailure, fmt::format("rank {}: {}", store->rank(), error.message)));
  const auto name = [](int rank) { return fmt::format("{} {}", kHeard, rank); };
  static_cast<void>(store->Set(name(store->rank()), "yes"));
  if (!store->is_ours()) return;
  int rank = 0;
  for (const Elapsed elapsed; rank < store->ranks() && elapsed.seconds() < kLongestToHear;) {
    const auto heard = store->Find(name(rank));
    if (!heard) return;
    if (*heard) ++rank;
    else std::this_thread::sleep_for(kPatience);
  }
}

}  // namespace fkdb
