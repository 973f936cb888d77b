// SPDX-License-Identifier: Apache-2.0
#include "writer/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "image/ordered_queue.h"
#include "writer/group_labeller.h"

namespace fkdb {
namespace {

// A model that ends in a softmax labels without complaint, and its labels are nearly uniform.
Result<void> CheckLogits(const Ensemble& teachers, const std::vector<size_t>& distributions, uint64_t crops) {
  for (size_t m = 0; m < teachers.members.size(); ++m) {
    const Teacher& teacher = *teachers.members[m].teacher;
    if (teacher.output_kind() != OutputKind::kLogits || crops < 2 || distributions[m] < crops) continue;
    const std::string or_say = teacher.grid() ? "" : fmt::format(", or say in '{}.json': {{\"output\": \"probabilities\"}}", teacher.file().string());
    return Fail(ErrorCode::kModel, fmt::format("teacher '{}' gives probabilities, not logits: its outputs for {} {} have no negative number and add up to 1; "
                                               "leave out its softmax{}", teacher.name(), crops, teacher.grid() ? "cells" : "crops", or_say));
  }
  return {};
}

}  // namespace

Result<ProbeResult> ProbeTeachers(const DataSet& data, const Ensemble& teachers, const LabelJobOptions& options, double seconds) {
  FKDB_ASSIGN(const OpenedCrops opened, OpenStoredCrops(options));
  FKDB_ASSIGN(Manifest recipe, PlanRecipe(data, teachers, options, opened.crops()));
  const uint32_t crops_per_image = recipe.augmentation.crops;
  // Crops are drawn, as many of an image as it takes for images to fill a batch.
  const uint32_t batch = recipe.teacher_batch_size;
  uint64_t images = batch;
  if (!recipe.spec.is_map()) {
    uint32_t& of_each = recipe.augmentation.crops;
    of_each = std::min(of_each, batch);
    while (batch % of_each != 0) --of_each;
    images = batch / of_each;
    recipe.spec.boxes = BoxEncoding::kPixel;
  }

  std::atomic<uint64_t> crops = 0, next_image = 0;
  std::mutex mutex;
  ProbeResult result;
  std::vector<size_t> distributions(teachers.members.size());
  Result<void> outcome;
  const Elapsed elapsed;
  const auto work = [&]() -> Result<void> {
    FKDB_ASSIGN(GroupLabeller labeller, GroupLabeller::Make(data, teachers, recipe, /*max_bad=*/kAnyBad));
    double bytes = 0;
    uint64_t mine = 0;
    std::string unread;
    while ((mine == 0 || elapsed.seconds() < seconds) && !(options.stop && *options.stop)) {
      const uint64_t image = next_image.fetch_add(images);
      if (image >= data.size()) break;
      LabelCounters counters;
      FKDB_ASSIGN(const auto records, labeller.Label(image, std::min(image + images, data.size()), &counters, options.stop));
      for (const auto& record : records) {
        FKDB_ASSIGN(const RecordView view, RecordView::Open(record, recipe.spec));
        if (!view.skipped()) bytes += static_cast<double>(record.size());
        else if (unread.empty()) unread = view.skip_reason();
      }
      mine += counters.crops;
    }
    const std::lock_guard lock(mutex);
    crops += mine;
    result.record_bytes += bytes;
    if (result.unread.empty()) result.unread = unread;
    for (size_t m = 0; m < distributions.size(); ++m) distributions[m] += labeller.batch().outputs().distributions(m);
    return {};
  };
  {
    std::vector<std::jthread> threads;
    FKDB_TRY(StartThreads(options.threads, [&] {
      Result<void> done = Guarded(work);
      const std::lock_guard lock(mutex);
      if (outcome && !done) outcome = std::move(done);
    }, &threads));
  }
  FKDB_TRY(outcome);
  if (options.stop && *options.stop) return Fail(ErrorCode::kIncomplete, "stopped before the first crop was labelled");
  result.crops = crops;
  result.crops_per_image = crops_per_image - (opened.appended ? opened.set->manifest().augmentation.crops : 0);
  result.seconds = elapsed.seconds();
  FKDB_TRY(CheckLogits(teachers, distributions, crops));
  return result;
}

}  // namespace fkdb
