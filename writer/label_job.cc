// SPDX-License-Identifier: Apache-2.0
#include "writer/label_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "db/file_names.h"
#include "db/lock_file.h"
#include "db/sha256.h"
#include "format/text.h"
#include "writer/recipe.h"
#include "writer/shards.h"

namespace fkdb {
namespace {

Result<void> DescribeTeachers(const Ensemble& teachers, Manifest* recipe) {
  FKDB_ASSIGN(const InputSpec students, InputOf(recipe->augmentation));
  const bool several = teachers.members.size() > 1;
  for (const auto& [teacher, weight] : teachers.members) {
    TeacherInfo info;
    info.name = teacher->name();
    FKDB_ASSIGN(info.sha256, Sha256OfFile(teacher->file()));
    if (several) info.weight = weight;
    if (teacher->output_kind() == OutputKind::kProbabilities) info.output = "probabilities";
    info.autocast = teacher->autocast();
    if (const InputSpec& in = teacher->input(); in != students) {
      info.input = {in.height, in.width, std::string(Name(in.interpolation)), in.mean, in.std};
    }
    recipe->teachers.push_back(std::move(info));
  }
  if (several) recipe->teacher_average = Name(teachers.average);
  return {};
}

// Operations are of pixels of the label set's input: a teacher that sees another number of them would see something else than
// the students.
Result<void> CheckOperations(const Ensemble& teachers, const AugmentationInfo& a) {
  FKDB_TRY(AugmentSampler::Make(a.policy, a.input_height, a.input_width));
  if (a.policy.empty()) return {};
  for (const auto& [teacher, weight] : teachers.members) {
    const InputSpec& in = teacher->input();
    if (in.height == a.input_height && in.width == a.input_width) continue;
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("teacher '{}' sees {} x {} pixels and students {} x {}: operations on crops need the same for both; --input-size {} makes it so",
                            teacher->name(), in.height, in.width, a.input_height, a.input_width, in.height));
  }
  return {};
}

// Makes `recipe` that of other labels for the crops of `boxes`.
Result<void> TakeBoxesOf(const LabelSet& boxes, const DataSet& data, Manifest* recipe) {
  const Manifest& from = boxes.manifest();
  const auto in = [&](ErrorCode code, std::string_view what) {
    return Fail(code, fmt::format("{}: cannot label its crops: {}", boxes.path().string(), what));
  };
  if (from.spec.is_map()) return in(ErrorCode::kUnsupported, "its labels are label maps, not labels of crops");
  FKDB_ASSIGN(const std::vector<std::string> keys, boxes.AllKeys());
  if (const std::string what = KeyDifference(keys, data.keys()); !what.empty()) return in(ErrorCode::kMismatch, what);
  AugmentationInfo& a = recipe->augmentation;
  a.crops = from.augmentation.crops;
  a.seed = from.augmentation.seed;
  a.scale = from.augmentation.scale;
  a.ratio = from.augmentation.ratio;
  a.flip_probability = from.augmentation.flip_probability;
  a.policy = from.augmentation.policy;
  if (!a.policy.empty() && (a.input_height != from.augmentation.input_height || a.input_width != from.augmentation.input_width)) {
    return in(ErrorCode::kInvalidArgument, fmt::format("they were changed as {} x {} pixels, not {} x {}", from.augmentation.input_height,
                                                       from.augmentation.input_width, a.input_height, a.input_width));
  }
  recipe->spec.boxes = from.spec.boxes;
  recipe->boxes_from = from.digest;
  return {};
}

// Makes `recipe` that of label maps: of what the teachers' grid says, which they have, of whole images.
Result<void> MakeMaps(const Ensemble& teachers, const StoredCrops& stored, Manifest* recipe) {
  const auto bad = [](const char* what) { return Fail(ErrorCode::kInvalidArgument, what); };
  if (stored.base) return bad("a label map has all its cells: no crops are appended to it");
  if (stored.boxes) return bad("a label map is of whole images, not of another label set's crops");
  if (!recipe->augmentation.policy.empty()) return bad("a label map is of images as they are: no operations on crops");
  const Grid grid = *teachers.grid();
  recipe->spec.boxes = BoxEncoding::kGrid;
  recipe->spec.grid_height = grid.height;
  recipe->spec.grid_width = grid.width;
  recipe->augmentation.crops = grid.cells();
  return {};
}

// Makes `recipe`, of more crops for the images of `base`, that of the joint label set.
Result<void> ExtendRecipe(const LabelSet& base, const DataSet& data, Manifest* recipe) {
  const auto in = [&](ErrorCode code, std::string what) {
    return Fail(code, fmt::format("{}: cannot append to it: {}", base.path().string(), what));
  };
  if (!base.manifest().averaged.empty()) {
    return in(ErrorCode::kInvalidArgument, "it is an average: append to the label sets that were averaged, and average again");
  }
  if (!base.manifest().boxes_from.empty()) {
    return in(ErrorCode::kInvalidArgument, "its crops were drawn for another label set: append to that one, and label the result with --boxes-from");
  }
  FKDB_ASSIGN(const std::vector<std::string> keys, base.AllKeys());
  if (const std::string what = KeyDifference(keys, data.keys()); !what.empty()) return in(ErrorCode::kMismatch, what);
  // Names say where things lie, hashes and lists what they are; and crops may differ.
  Manifest stored = base.manifest();
  stored.extends.clear();
  stored.data_set.name = recipe->data_set.name;
  stored.augmentation.crops = recipe->augmentation.crops;
  for (size_t i = 0; i < std::min(stored.teachers.size(), recipe->teachers.size()); ++i) {
    stored.teachers[i].name = recipe->teachers[i].name;
  }
  if (stored.data_set != recipe->data_set) return in(ErrorCode::kMismatch, RecipeDifference(stored, *recipe));
  if (const std::string what = RecipeDifference(stored, *recipe); !what.empty()) return in(ErrorCode::kInvalidArgument, what);
  recipe->data_set.name = base.manifest().data_set.name;
  recipe->teachers = base.manifest().teachers;
  recipe->augmentation.crops += base.manifest().augmentation.crops;
  recipe->extends = base.manifest().digest;
  return {};
}

// Which image is the first that an interrupted build of other images has not, in words; empty if all that it has are the same.
std::string FirstOther(const std::filesystem::path& partial, const DataSet& data) {
  const auto set = LabelSet::Open(partial, {.allow_partial = true});
  for (uint64_t i = 0; set && i < std::min(set->num_images(), data.size()); ++i) {
    const auto bytes = set->RecordBytes(i);
    const auto record = bytes ? RecordView::Open(*bytes, set->manifest().spec) : Result<RecordView>(Fail(bytes.error()));
    if (!record) return "";
    if (record->key_hash() != Hash64(data.keys()[i])) return fmt::format("; the first image that it does not have in this place is '{}'", Printable(data.keys()[i]));
  }
  return "";
}

}  // namespace

Result<OpenedCrops> OpenStoredCrops(const LabelJobOptions& options) {
  OpenedCrops opened;
  opened.appended = !options.append_to.empty();
  if (const auto& path = opened.appended ? options.append_to : options.boxes_from; !path.empty()) {
    FKDB_ASSIGN(opened.set, LabelSet::Open(path));
  }
  return opened;
}

Result<Manifest> PlanRecipe(const DataSet& data, const Ensemble& teachers, const LabelJobOptions& options,
                            const StoredCrops& stored) {
  const LabelSet* const base = stored.base;
  const auto bad = [](std::string message) { return Fail(ErrorCode::kInvalidArgument, std::move(message)); };
  if (!options.append_to.empty() && !options.boxes_from.empty()) return bad("more crops for a label set, or labels for another one's crops: not both");
  Manifest recipe;
  recipe.spec = options.spec;
  recipe.augmentation = options.augmentation;
  FKDB_TRY(CheckEnsemble(teachers, recipe.spec));
  if (recipe.spec.is_map()) FKDB_TRY(MakeMaps(teachers, stored, &recipe));
  else if (stored.boxes) FKDB_TRY(TakeBoxesOf(*stored.boxes, data, &recipe));
  recipe.spec.num_classes = teachers.num_outputs();
  FKDB_ASSIGN(recipe.spec, CheckLabelSpec(recipe.spec));
  const AugmentationInfo& a = recipe.augmentation;
  const uint64_t all_crops = uint64_t{a.crops} + (base ? base->manifest().augmentation.crops : 0);
  if (a.crops < 1 || all_crops > kMaxCropsPerImage) {
    return bad(fmt::format("{} crops an image{}: expected 1 to {}", all_crops, base ? " in all" : "", kMaxCropsPerImage));
  }
  if (a.input_height < 1 || a.input_width < 1) return bad("the teacher's input needs at least one pixel a side");
  FKDB_TRY(Normalizer::Make(a.mean, a.std));
  FKDB_TRY(CheckOperations(teachers, a));
  if (a.mean.size() != data.channels()) return bad(fmt::format("{} means for images of {} channels", a.mean.size(), data.channels()));
  if (options.batch_size < 1) return bad("a teacher batch needs at least one crop");
  if (data.layout() != "idx") recipe.augmentation.wide_samples = kHighByte;  // PNG may have them
  recipe.teacher_batch_size = options.batch_size;
  FKDB_TRY(CheckRecordSize(recipe.spec, all_crops));
  const size_t classes = options.use_classes ? data.class_names().size() : 0;
  if (classes > 0 && recipe.spec.kind != LabelKind::kLogits && classes != teachers.num_outputs()) {
    return bad(fmt::format("teacher '{}' has {} outputs, data set '{}' {} classes; if its folders are not the "
                           "teacher's classes, say --no-classes",
                           teachers.members[0].teacher->name(), teachers.num_outputs(), data.name(), classes));
  }
  recipe.data_set = Describe(data, options.use_classes);
  FKDB_TRY(DescribeTeachers(teachers, &recipe));
  recipe.provenance = options.provenance;
  if (base) FKDB_TRY(ExtendRecipe(*base, data, &recipe));
  return recipe;
}

Result<LabelJobResult> LabelImages(const DataSet& data, const Ensemble& teachers, const std::filesystem::path& out,
                                   const LabelJobOptions& options) {
  std::error_code ec;
  const bool shared = std::filesystem::exists(JobPath(out), ec);
  if (shared && options.file.resume) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: several processes began this label set: a launcher resumes it (torchrun, srun), also with one "
                                                         "process; --overwrite starts anew", JobPath(out).string()));
  }
  std::optional<LockFile> lock;
  if (shared) {  // it may be overwritten, unless they are at work
    FKDB_ASSIGN(lock, LockFile::Acquire(WriterLockPath(JobPath(out))));
  }
  FKDB_ASSIGN(const OpenedCrops opened, OpenStoredCrops(options));
  const StoredCrops stored = opened.crops();
  FKDB_ASSIGN(const Manifest recipe, PlanRecipe(data, teachers, options, stored));
  FKDB_ASSIGN(const GroupRun run, GroupRun::Make(data, teachers, recipe, stored));
  auto opened_writer = LabelFileWriter::Open(out, recipe, options.file);
  if (!opened_writer && opened_writer.error().code == ErrorCode::kMismatch) {
    return Fail(ErrorCode::kMismatch, opened_writer.error().message + FirstOther(PartialPath(out), data));
  }
  FKDB_ASSIGN(LabelFileWriter writer, std::move(opened_writer));
  if (shared) {
    RemoveShards(out);
    std::filesystem::remove(JobPath(out), ec);
  }

  const uint64_t first_group = writer.num_images() / run.group_size();
  // The first group may be half written: it is computed whole, its known records are dropped.
  uint64_t known = writer.num_images() - first_group * run.group_size();
  uint64_t next = first_group;
  const auto next_group = [&]() -> Result<std::optional<uint64_t>> {
    return next < run.num_groups() ? std::optional(next++) : std::nullopt;
  };
  const auto append = [&](uint64_t, EncodedRecords records) -> Result<void> {
    for (; known < records.size(); ++known) FKDB_TRY(writer.Append(std::move(records[known])));
    known = 0;
    return {};
  };
  LabelCounters counters;
  const Elapsed elapsed;
  const auto progress = [&] {
    LabelProgress p;
    p.images = writer.num_images();
    p.all_images = data.size();
    p.Take(counters);
    p.all_crops = run.images_of(first_group, run.num_groups()) * run.crops();
    p.seconds = elapsed.seconds();
    return p;
  };
  GroupRun::Options how{options.max_bad, options.threads, options.stop, {}};
  if (options.progress) how.progress = [&] { options.progress(progress()); };
  Result<void> outcome = run.Run(how, next_group, append, &counters);

  LabelJobResult result;
  if (outcome && writer.num_images() < data.size()) {
    result.interrupted = true;
    outcome = writer.Flush();
  } else if (!outcome) {
    const auto flushed = writer.Flush();  // keep what was labelled before the failure
    static_cast<void>(flushed);
    return Fail(std::move(outcome).error());
  }
  FKDB_TRY(outcome);
  result.images_written = writer.num_images();
  result.progress = progress();
  if (result.interrupted) return result;
  FKDB_ASSIGN(result.manifest, writer.Finish(data.keys()));
  return result;
}

}  // namespace fkdb
