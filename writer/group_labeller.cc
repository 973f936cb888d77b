// SPDX-License-Identifier: Apache-2.0
#include "writer/group_labeller.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "format/crop_op.h"
#include "format/recode.h"
#include "format/text.h"
#include "writer/crop_output.h"

namespace fkdb {
namespace {

tl::unexpected<Error> BadImage(const Error& error, uint64_t max_bad) {
  return Fail(error.code == ErrorCode::kNotFound ? ErrorCode::kNotFound : ErrorCode::kIoError,
              error.message + (max_bad == 0 ? "; --skip-bad labels the others" : fmt::format("; one more than --max-bad {} allows; what is labelled is kept", max_bad)));
}

bool Stopped(const std::atomic<bool>* stop) { return stop && stop->load(std::memory_order_relaxed); }

}  // namespace

uint64_t GroupSize(uint32_t batch_size, uint32_t crops_per_image) {
  return batch_size / std::gcd(batch_size, crops_per_image);
}

Result<GroupLabeller> GroupLabeller::Make(const DataSet& data, const Ensemble& teachers, const Manifest& recipe,
                                          uint64_t max_bad, const StoredCrops& stored, std::shared_ptr<const PartnerImages> partners) {
  const AugmentationInfo& a = recipe.augmentation;
  FKDB_ASSIGN(const CropSampler sampler, CropSampler::Make({a.scale, a.ratio, a.flip_probability}));
  FKDB_ASSIGN(EnsembleBatch batch, EnsembleBatch::Make(teachers, recipe.spec.temperature, recipe.teacher_batch_size));
  if (batch.channels() != data.channels()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("teachers of {} channels for images of {}", batch.channels(), data.channels()));
  }
  FKDB_ASSIGN(const AugmentSampler augment_sampler, AugmentSampler::Make(a.policy, a.input_height, a.input_width));
  return GroupLabeller(data, std::move(batch), recipe, max_bad, stored, sampler, augment_sampler,
                       partners ? std::move(partners) : std::make_shared<PartnerImages>(data));
}

GroupLabeller::GroupLabeller(const DataSet& data, EnsembleBatch batch, const Manifest& recipe, uint64_t max_bad,
                             const StoredCrops& stored, CropSampler sampler, AugmentSampler augment_sampler,
                             std::shared_ptr<const PartnerImages> partners)
    : data_(data),
      spec_(recipe.spec),
      augmentation_(recipe.augmentation),
      max_bad_(max_bad),
      stored_(stored),
      crops_(augmentation_.crops - (stored.base ? stored.base->manifest().augmentation.crops : 0)),
      has_classes_(!recipe.data_set.class_names.empty()),
      sampler_(std::move(sampler)),
      augment_sampler_(std::move(augment_sampler)),
      partners_(std::move(partners)),
      batch_(std::move(batch)) {}

tl::unexpected<Error> GroupLabeller::About(uint64_t ordinal, const Error& error) const {
  return Fail(error.code, fmt::format("image '{}': {}", Printable(data_.keys()[ordinal]), error.message));
}

Result<RecordView> GroupLabeller::StoredOf(const LabelSet& set, uint64_t ordinal) const {
  FKDB_ASSIGN(const auto bytes, set.RecordBytes(ordinal));
  FKDB_ASSIGN(const RecordView view, RecordView::Open(bytes, set.manifest().spec));
  if (auto valid = view.Validate(); !valid) return About(ordinal, valid.error());  // boxes are cut out, crops appended
  return view;
}

Result<std::optional<Image>> GroupLabeller::BeginImage(uint64_t ordinal, Record* record) {
  record->key_hash = Hash64(data_.keys()[ordinal]);
  record->class_index = has_classes_ ? data_.class_index(ordinal) : kNoClass;
  std::optional<RecordView> before;
  if (const LabelSet* set = stored_.base ? stored_.base : stored_.boxes) {
    FKDB_ASSIGN(before, StoredOf(*set, ordinal));
    if (before->skipped()) {
      record->skip_reason = before->skip_reason();
      record->content_hash = before->content_hash();
      return std::optional<Image>();
    }
  }
  file_.clear();
  auto image = [&] {
    const StageTime time(counters_, Stage::kDecode);
    auto loaded = data_.Load(ordinal, &file_);
    record->content_hash = HashContent(file_);
    return loaded;
  }();
  // A label set that came from elsewhere does not know its images' files.
  if (before && before->content_hash() != ContentHash{} && record->content_hash != before->content_hash()) {
    return Fail(ErrorCode::kMismatch, fmt::format("image '{}': {}; the {} crops of it are of another file", Printable(data_.keys()[ordinal]),
                                                  image ? "it changed since it was labelled" : image.error().message,
                                                  stored_.base ? "first" : "stored"));
  }
  if (!image) {
    const uint64_t bad = counters_ ? ++counters_->bad : 1;
    if (bad > max_bad_) return BadImage(image.error(), max_bad_);
    record->skip_reason = image.error().message;
    return std::optional<Image>();
  }
  record->width = image->width;
  record->height = image->height;
  if (before && (before->width() != image->width || before->height() != image->height)) {
    return Fail(ErrorCode::kMismatch, fmt::format("image '{}': it was {} x {} pixels when its crops were drawn and is {} x {} now",
                                                  Printable(data_.keys()[ordinal]), before->width(), before->height(), image->width, image->height));
  }
  const Result<void> crops = stored_.boxes ? TakeCrops(*before, record) : DrawCrops(ordinal, stored_.base ? before->num_crops() : 0, record);
  if (!crops) return About(ordinal, crops.error());
  record->indices.resize(record->num_crops() * spec_.num_indices());
  record->values.resize(record->num_crops() * spec_.num_values());
  return std::optional<Image>(std::move(*image));
}

Result<void> GroupLabeller::DrawCrops(uint64_t ordinal, uint32_t first_crop, Record* record) {
  if (spec_.is_map()) {
    record->flips.resize(spec_.num_cells());
    boxes_ = {{0, 0, record->height, record->width}};
    return {};
  }
  for (uint32_t i = 0; i < crops_; ++i) {
    const SampledCrop crop = sampler_.Sample(augmentation_.seed, record->key_hash, first_crop + i, record->width, record->height);
    record->pixel_boxes.push_back(crop.box);
    record->flips.push_back(crop.flip);
    if (augmentation_.policy.empty()) continue;
    FKDB_ASSIGN(std::vector<CropOp> ops, DrawOps(ordinal, record->key_hash, first_crop + i));
    record->ops.push_back(std::move(ops));
  }
  boxes_ = record->pixel_boxes;
  return {};
}

Result<std::vector<CropOp>> GroupLabeller::DrawOps(uint64_t ordinal, uint64_t key_hash, uint32_t crop) const {
  AugmentDraw draw = augment_sampler_.Draw(augmentation_.seed, key_hash, crop, ordinal, data_.size());
  if (!draw.mix) return std::move(draw.ops);
  std::vector<std::byte> file;
  const auto size = data_.Measure(draw.mix->partner, &file);
  if (!size && max_bad_ > 0) return std::move(draw.ops);  // there is nothing to mix it with
  if (!size) return BadImage(size.error(), max_bad_);
  const SampledCrop shown = sampler_.Sample(draw.mix->crop_seed, key_hash, crop, size->width, size->height);
  const uint64_t partner = Hash64(data_.keys()[draw.mix->partner]);
  if (Image image; max_bad_ > 0 && !partners_->Load(partner, shown.box, &image)) return std::move(draw.ops);  // its header was good
  AppendMix(*draw.mix, partner, shown.box, shown.flip, &draw.ops);
  return std::move(draw.ops);
}

Result<void> GroupLabeller::TakeCrops(const RecordView& from, Record* record) {
  boxes_.clear();
  for (uint32_t i = 0; i < from.num_crops(); ++i) {
    if (from.has_ops()) {
      FKDB_ASSIGN(std::vector<CropOp> ops, from.Ops(i));
      if (!ops.empty() && !(*stored_.boxes).manifest().imported_from.empty()) {
        return Fail(ErrorCode::kUnsupported, fmt::format("its crops were changed by '{}' of the system that they were imported from", InfoOf(ops[0].kind)->name));
      }
      record->ops.push_back(std::move(ops));
    }
    boxes_.push_back(from.pixel_box(i));
    record->flips.push_back(from.flip(i));
    if (spec_.boxes == BoxEncoding::kPixel) record->pixel_boxes.push_back(boxes_.back());
    else record->fraction_boxes.push_back(from.fraction_box(i));
  }
  return {};
}

Result<void> GroupLabeller::AddCrop(const Image& image, bool flip, std::span<const CropOp> ops, uint32_t crop) {
  const StageTime time(counters_, Stage::kCrop);
  return batch_.Add(image, boxes_[crop], flip, ops, *partners_);
}

Result<void> GroupLabeller::RunBatch(std::vector<Record>* records, uint64_t first) {
  if (slots_.empty()) return {};
  {
    const StageTime time(counters_, Stage::kTeacher);
    FKDB_TRY(batch_.Run());
  }
  const StageTime time(counters_, Stage::kEncode);
  const EnsembleOutputs& outputs = batch_.outputs();
  const size_t rows = outputs.rows_per_crop();
  for (size_t i = 0; i < slots_.size() * rows; ++i) {
    const Slot slot = {slots_[i / rows].record, slots_[i / rows].crop + static_cast<uint32_t>(i % rows)};
    if (StoreOutput(spec_, outputs.kind(), outputs.output(i), slot.crop, &(*records)[slot.record])) continue;
    const Teacher& teacher = outputs.Culprit(i);
    const bool logits = teacher.output_kind() == OutputKind::kLogits;
    return Fail(ErrorCode::kModel, fmt::format("teacher '{}' gave {} for {} {} of image '{}': check {}", teacher.name(),
                                               logits ? "NaN or infinity" : "no probabilities, as '" + teacher.file().string() + ".json' says it would,",
                                               spec_.is_map() ? "cell" : "crop", slot.crop, Printable(data_.keys()[first + slot.record]),
                                               logits ? "the model and its normalization" : "that file and the model"));
  }
  if (counters_) counters_->crops += slots_.size() * rows;
  slots_.clear();
  batch_.Clear();
  return {};
}

Result<std::vector<std::byte>> GroupLabeller::Encode(uint64_t ordinal, const Record& record) const {
  if (!stored_.base) return EncodeRecord(spec_, record);
  FKDB_ASSIGN(const RecordView view, StoredOf(*stored_.base, ordinal));
  FKDB_ASSIGN(Record base, DecodeRecord(view));
  return EncodeRecord(spec_, view.skipped() ? base : AppendCrops(std::move(base), record));
}

Result<std::vector<std::vector<std::byte>>> GroupLabeller::Label(uint64_t first, uint64_t end,
                                                                 LabelCounters* counters,
                                                                 const std::atomic<bool>* stop) {
  std::vector<Record> records(end - first);
  counters_ = counters;
  slots_.clear();
  batch_.Clear();
  for (uint64_t ordinal = first; ordinal < end; ++ordinal) {
    Record& record = records[ordinal - first];
    FKDB_ASSIGN(const std::optional<Image> image, BeginImage(ordinal, &record));
    for (uint32_t crop = 0; crop < record.num_crops(); crop += spec_.is_map() ? spec_.num_cells() : 1) {
      const std::span<const CropOp> ops = record.ops.empty() ? std::span<const CropOp>() : record.ops[crop];
      if (const auto added = AddCrop(*image, record.flips[crop], ops, crop); !added) return About(ordinal, added.error());
      slots_.push_back({ordinal - first, crop});
      if (!batch_.full()) continue;
      if (Stopped(stop)) return std::vector<std::vector<std::byte>>();
      FKDB_TRY(RunBatch(&records, first));
    }
  }
  FKDB_TRY(RunBatch(&records, first));

  const StageTime time(counters, Stage::kEncode);
  std::vector<std::vector<std::byte>> encoded;
  for (size_t i = 0; i < records.size(); ++i) {
    auto bytes = Encode(first + i, records[i]);
    if (!bytes) return About(first + i, bytes.error());
    encoded.push_back(std::move(*bytes));
  }
  return encoded;
}

}  // namespace fkdb
