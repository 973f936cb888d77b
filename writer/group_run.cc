// SPDX-License-Identifier: Apache-2.0
#include "writer/group_run.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace fkdb {
namespace {

// What `next` names, by the number of the piece of work that it becomes.
class NamedGroups {
 public:
  explicit NamedGroups(const GroupRun::Next& next) : next_(next) {}

  Result<std::optional<uint64_t>> Of(uint64_t piece) {
    const std::lock_guard guard(mutex_);
    while (!ended_ && groups_.size() <= piece) {
      FKDB_ASSIGN(const std::optional<uint64_t> group, next_());
      if (group) groups_.push_back(*group);
      else ended_ = true;
    }
    return piece < groups_.size() ? std::optional(groups_[piece]) : std::nullopt;
  }

 private:
  const GroupRun::Next& next_;
  std::mutex mutex_;
  std::vector<uint64_t> groups_;
  bool ended_ = false;
};

}  // namespace

Result<GroupRun> GroupRun::Make(const DataSet& data, const Ensemble& teachers, const Manifest& recipe, const StoredCrops& stored) {
  FKDB_TRY(GroupLabeller::Make(data, teachers, recipe, /*max_bad=*/0, stored));
  return GroupRun(data, teachers, recipe, stored);
}

GroupRun::GroupRun(const DataSet& data, const Ensemble& teachers, const Manifest& recipe, const StoredCrops& stored)
    : data_(&data),
      teachers_(&teachers),
      recipe_(&recipe),
      stored_(stored),
      crops_(recipe.augmentation.crops - (stored.base ? stored.base->manifest().augmentation.crops : 0)),
      group_size_(GroupSize(recipe.teacher_batch_size, CropsSeen(recipe.spec, crops_))) {}

uint64_t GroupRun::images_of(uint64_t first_group, uint64_t end_group) const {
  const auto first_image = [&](uint64_t group) { return std::min(group * group_size_, data_->size()); };
  return first_image(end_group) - first_image(first_group);
}

Result<void> GroupRun::Run(const Options& options, const Next& next, const Take& take, LabelCounters* counters) const {
  NamedGroups groups(next);
  OrderedRun run;
  run.end = std::numeric_limits<uint64_t>::max();
  run.threads = options.threads;
  run.stop = options.stop;
  run.progress = options.progress;
  const auto partners = std::make_shared<const PartnerImages>(*data_);
  const auto make_work = [&]() -> MakeRecords {
    auto labeller = std::make_shared<Result<GroupLabeller>>(GroupLabeller::Make(*data_, *teachers_, *recipe_, options.max_bad, stored_, partners));
    return [&, labeller](uint64_t piece) -> Result<std::optional<EncodedRecords>> {
      FKDB_ASSIGN(const std::optional<uint64_t> group, groups.Of(piece));
      if (!group) return std::optional<EncodedRecords>();
      const uint64_t first = *group * group_size_;
      FKDB_ASSIGN(EncodedRecords records, (*labeller)->Label(first, std::min(first + group_size_, data_->size()), counters, options.stop));
      ++counters->made;
      return std::optional(std::move(records));
    };
  };
  uint64_t piece = 0;
  return RunInOrder(run, make_work, [&](EncodedRecords records) -> Result<void> {
    FKDB_ASSIGN(const std::optional<uint64_t> group, groups.Of(piece++));
    ++counters->taken;
    if (records.empty()) return {};  // stopped
    return take(*group, std::move(records));
  });
}

}  // namespace fkdb
