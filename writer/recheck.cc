// SPDX-License-Identifier: Apache-2.0
#include "writer/recheck.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <utility>
#include <vector>

#include "db/label_set.h"
#include "format/recover.h"
#include "format/text.h"
#include "writer/group_run.h"

namespace fkdb {
namespace {

// What must be as it was: all but where the teachers' files lie, and how the label set came about.
std::string Difference(Manifest stored, Manifest planned) {
  for (Manifest* m : {&stored, &planned}) {
    *m = WithoutImages(std::move(*m));
    m->data_set.name.clear();
    m->imported_from.clear();
    m->imported_sample.clear();
  }
  const bool known = std::ranges::any_of(stored.teachers, [](const TeacherInfo& teacher) { return !teacher.sha256.empty(); });
  if (!known) {  // labels from elsewhere
    for (Manifest* m : {&stored, &planned}) m->teachers.clear(), m->teacher_average.clear();
  }
  if (stored.teacher_batch_size == 0) planned.teacher_batch_size = 0;
  for (size_t i = 0; i < std::min(stored.teachers.size(), planned.teachers.size()); ++i) planned.teachers[i].name = stored.teachers[i].name;
  return RecipeDifference(stored, planned, {"in the label set", "now"});
}

// Compares crops, two records of an image at a time.
class Comparison {
 public:
  explicit Comparison(const LabelSpec& spec) : spec_(spec), dense_(2, std::vector<float>(spec.num_classes)) {}

  void Add(const RecordView& stored, const RecordView& again) {
    ++result_.images;
    for (uint32_t crop = 0; crop < stored.num_crops(); ++crop) AddCrop({&stored, &again}, crop);
  }
  RecheckResult result() const {
    RecheckResult all = result_;
    all.mean_distance = sum_ / static_cast<double>(std::max<uint64_t>(1, all.crops));
    return all;
  }

 private:
  struct Label {
    std::vector<uint32_t> indices;
    std::vector<float> values;
    bool operator==(const Label&) const = default;
  };

  void AddCrop(const std::array<const RecordView*, 2>& views, uint32_t crop) {
    size_t top[2];
    for (size_t i = 0; i < 2; ++i) {
      Label& label = labels_[i];
      label.indices.resize(spec_.num_indices());
      label.values.resize(spec_.num_values());
      views[i]->CopyIndices(crop, label.indices.data());
      views[i]->CopyValues(crop, label.values.data());
      RecoverCrop(spec_, label.indices, label.values, /*tau=*/1, dense_[i]);
      top[i] = static_cast<size_t>(std::max_element(dense_[i].begin(), dense_[i].end()) - dense_[i].begin());
    }
    double distance = 0;
    for (size_t c = 0; c < dense_[0].size(); ++c) distance += std::abs(double{dense_[0][c]} - dense_[1][c]) / 2;
    ++result_.crops;
    result_.identical += labels_[0] == labels_[1];
    result_.same_top1 += top[0] == top[1];
    result_.worst_distance = std::max(result_.worst_distance, distance);
    sum_ += distance;
  }

  LabelSpec spec_;
  RecheckResult result_;
  double sum_ = 0;
  Label labels_[2];
  std::vector<std::vector<float>> dense_;
};

}  // namespace

Result<LabelJobOptions> RecheckOptions(const std::filesystem::path& path) {
  FKDB_ASSIGN(const LabelSet set, LabelSet::Open(path));
  const Manifest& m = set.manifest();
  LabelJobOptions options;
  options.spec = m.spec;
  options.augmentation = m.augmentation;
  if (m.teacher_batch_size > 0) options.batch_size = m.teacher_batch_size;
  options.use_classes = !m.data_set.class_names.empty();
  return options;
}

Result<RecheckResult> RecheckLabels(const DataSet& data, const Ensemble& teachers, const std::filesystem::path& path,
                                    const LabelJobOptions& options, double share) {
  if (!(share > 0 && share <= 1)) return Fail(ErrorCode::kInvalidArgument, fmt::format("a share of {} of the images: expected more than 0, at most 1", share));
  FKDB_ASSIGN(const LabelSet set, LabelSet::Open(path));
  const bool maps = set.manifest().spec.is_map();  // of whole images: there are no boxes to take
  const StoredCrops stored = {nullptr, maps ? nullptr : &set};
  FKDB_ASSIGN(const Manifest recipe, PlanRecipe(data, teachers, options, stored));
  if (const std::string what = Difference(set.manifest(), recipe); !what.empty()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: cannot be checked with these: {}", path.string(), what));
  }
  FKDB_ASSIGN(const GroupRun run, GroupRun::Make(data, teachers, recipe, stored));
  const uint64_t groups = run.num_groups();
  const auto sample = static_cast<uint64_t>(std::ceil(share * static_cast<double>(groups)));
  uint64_t next = 0;
  const auto next_group = [&]() -> Result<std::optional<uint64_t>> {
    if (next == sample) return std::optional<uint64_t>();
    return std::optional((2 * next++ + 1) * groups / (2 * sample));
  };
  Comparison comparison(recipe.spec);
  const auto compare = [&](uint64_t group, EncodedRecords records) -> Result<void> {
    const uint64_t first = group * run.group_size();
    for (uint64_t i = 0; i < records.size(); ++i) {
      FKDB_ASSIGN(const auto bytes, set.RecordBytes(first + i));
      FKDB_ASSIGN(const RecordView before, RecordView::Open(bytes, recipe.spec));
      FKDB_ASSIGN(const RecordView again, RecordView::Open(records[i], recipe.spec));
      const auto about = [&](ErrorCode code, std::string_view what) {
        return Fail(code, fmt::format("image '{}': {}", Printable(data.keys()[first + i]), what));
      };
      if (auto valid = before.Validate(); !valid) return about(valid.error().code, valid.error().message);
      if (before.skipped()) continue;
      if (again.skipped()) return about(ErrorCode::kIoError, again.skip_reason());
      const bool known = before.content_hash() != ContentHash{};
      if ((known && again.content_hash() != before.content_hash()) || again.width() != before.width() || again.height() != before.height()) {
        return about(ErrorCode::kMismatch, "it changed since it was labelled");
      }
      comparison.Add(before, again);
    }
    return {};
  };
  LabelCounters counters;
  const Elapsed elapsed;
  GroupRun::Options how{/*max_bad=*/maps ? kAnyBad : 0, options.threads, options.stop, {}};
  if (options.progress) {
    how.progress = [&] {
      LabelProgress p;
      p.all_images = std::min(sample * run.group_size(), data.size());
      p.all_crops = p.all_images * run.crops();
      p.Take(counters);
      p.images = p.crops / run.crops();
      p.seconds = elapsed.seconds();
      options.progress(p);
    };
  }
  FKDB_TRY(run.Run(how, next_group, compare, &counters));
  if (options.stop && *options.stop) return Fail(ErrorCode::kIncomplete, "stopped before the sample was labelled; nothing was changed");
  return comparison.result();
}

}  // namespace fkdb
