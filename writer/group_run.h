// SPDX-License-Identifier: Apache-2.0
// Groups labelled on several threads, whoever decides which: all of a data set (label_job.h), those that one of several
// processes claims (shared_job.h), a sample (recheck.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>

#include "db/manifest.h"
#include "format/result.h"
#include "image/data_set.h"
#include "writer/ensemble.h"
#include "writer/group_labeller.h"
#include "writer/ordered_run.h"
#include "writer/progress.h"

namespace fkdb {

// Borrows everything.
class GroupRun {
 public:
  struct Options {
    uint64_t max_bad = 0;  // as GroupLabeller's
    int threads = 1;
    const std::atomic<bool>* stop = nullptr;  // ends the run early
    std::function<void()> progress;           // called now and then from the calling thread
  };
  // `recipe`: as GroupLabeller's. Errors: GroupLabeller's.
  static Result<GroupRun> Make(const DataSet& data, const Ensemble& teachers, const Manifest& recipe, const StoredCrops& stored);

  uint64_t group_size() const { return group_size_; }  // images
  uint64_t num_groups() const { return (data_->size() + group_size_ - 1) / group_size_; }
  // Of the groups' images, those from `first_group` to before `end_group`.
  uint64_t images_of(uint64_t first_group, uint64_t end_group) const;
  uint32_t crops() const { return crops_; }  // to label of each image

  // The next group to label, or none; one caller at a time.
  using Next = std::function<Result<std::optional<uint64_t>>()>;
  // All records of a group. Groups come in the order in which `next` named them, on the calling thread.
  using Take = std::function<Result<void>(uint64_t group, EncodedRecords)>;
  // Errors: the first of `next`, a group or `take`.
  Result<void> Run(const Options& options, const Next& next, const Take& take, LabelCounters* counters) const;

 private:
  GroupRun(const DataSet& data, const Ensemble& teachers, const Manifest& recipe, const StoredCrops& stored);

  const DataSet* data_;
  const Ensemble* teachers_;
  const Manifest* recipe_;
  StoredCrops stored_;
  uint32_t crops_;
  uint64_t group_size_;
};

}  // namespace fkdb
