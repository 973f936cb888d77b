// SPDX-License-Identifier: Apache-2.0
#include "db/average.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "db/label_set.h"
#include "db/write_images.h"
#include "format/quantize.h"
#include "format/record.h"
#include "format/recover.h"
#include "format/text.h"

namespace fkdb {
namespace {

// What must be the same: all but who labelled it, from which input, and in which batches.
Manifest Comparable(Manifest m, const Manifest& first) {
  m = WithoutImages(std::move(m));
  m.data_set.name = first.data_set.name;
  m.teachers.clear();
  m.teacher_average.clear();
  m.teacher_batch_size = 0;
  m.imported_from.clear();
  m.imported_sample.clear();
  const AugmentationInfo& a = first.augmentation;
  if (a.policy.empty()) {  // operations are of pixels of one input
    m.augmentation.input_height = a.input_height;
    m.augmentation.input_width = a.input_width;
  }
  m.augmentation.interpolation = a.interpolation;
  m.augmentation.mean = a.mean;
  m.augmentation.std = a.std;
  return m;
}

class Averager {
 public:
  Averager(std::span<const std::filesystem::path> inputs, const AverageOptions& options) : inputs_(inputs), options_(options) {}

  Result<Manifest> Run(const std::filesystem::path& out) {
    FKDB_TRY(CheckWeights());
    for (const auto& path : inputs_) {
      FKDB_ASSIGN(LabelSet set, LabelSet::Open(path));
      sets_.push_back(std::move(set));
    }
    spec_ = sets_[0].manifest().spec;
    if (spec_.is_map()) return Fail(ErrorCode::kUnsupported, fmt::format("{}: label maps are not averaged", inputs_[0].string()));
    FKDB_TRY(CheckSameCrops());
    FKDB_ASSIGN(const Manifest recipe, Recipe());
    dense_.resize(spec_.num_classes);
    sum_.resize(spec_.num_classes);
    std::vector<SourceImage> images;
    for (uint64_t i = 0; i < keys_.size(); ++i) images.push_back({keys_[i], 0, i});
    return WriteImages(out, recipe, images, options_, [this](const SourceImage& image) { return AverageOf(image); });
  }

 private:
  double weight(size_t set) const { return options_.weights.empty() ? 1 : options_.weights[set]; }

  Result<void> CheckWeights() const {
    const auto bad = [](std::string what) { return Fail(ErrorCode::kInvalidArgument, std::move(what)); };
    if (inputs_.size() < 2) return bad("an average is of two label sets or more");
    if (!options_.weights.empty() && options_.weights.size() != inputs_.size()) {
      return bad(fmt::format("{} weights for {} label sets", options_.weights.size(), inputs_.size()));
    }
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (!(weight(i) > 0) || !std::isfinite(weight(i))) return bad(fmt::format("weight {}: expected a positive number", weight(i)));
    }
    return {};
  }

  Result<void> CheckSameCrops() {
    FKDB_ASSIGN(keys_, sets_[0].AllKeys());
    const Manifest& first = sets_[0].manifest();
    for (size_t i = 1; i < sets_.size(); ++i) {
      FKDB_ASSIGN(const auto keys, sets_[i].AllKeys());
      std::string difference = KeyDifference(keys_, keys);
      if (difference.empty()) {
        difference = RecipeDifference(Comparable(first, first), Comparable(sets_[i].manifest(), first), {"in the first", "in the second"});
      }
      if (!difference.empty()) {
        return Fail(ErrorCode::kMismatch, fmt::format("{} and {} cannot be averaged: {}", inputs_[0].string(), inputs_[i].string(), difference));
      }
    }
    return {};
  }

  // Its teachers are those of all inputs, in the proportions that they have in the end.
  Result<Manifest> Recipe() const {
    Manifest recipe = sets_[0].manifest();
    recipe.teachers.clear();
    recipe.teacher_average = spec_.kind == LabelKind::kLogits ? "logits" : "probabilities";
    recipe.averaged.clear();
    recipe.extends.clear();
    for (size_t i = 0; i < sets_.size(); ++i) {
      const Manifest& m = sets_[i].manifest();
      recipe.averaged.push_back({m.digest, weight(i)});
      if (!m.teacher_average.empty() && m.teacher_average != recipe.teacher_average) {
        return Fail(ErrorCode::kUnsupported, fmt::format("{} is an average of {} itself: not averaged as {}", inputs_[i].string(), m.teacher_average,
                                                         recipe.teacher_average));
      }
      double all = 0;
      for (const TeacherInfo& teacher : m.teachers) all += teacher.weight;
      for (TeacherInfo teacher : m.teachers) {
        teacher.weight = weight(i) * (all > 0 ? teacher.weight / all : 1.0 / static_cast<double>(m.teachers.size()));
        const AugmentationInfo &a = m.augmentation, &students = recipe.augmentation;
        const TeacherInputInfo own = {a.input_height, a.input_width, a.interpolation, a.mean, a.std};
        const TeacherInputInfo theirs = {students.input_height, students.input_width, students.interpolation, students.mean, students.std};
        if (teacher.input.height == 0 && own != theirs) teacher.input = own;
        recipe.teachers.push_back(std::move(teacher));
      }
    }
    return recipe;
  }

  Result<std::vector<std::byte>> AverageOf(const SourceImage& image) {
    std::vector<RecordView> views;
    for (size_t i = 0; i < sets_.size(); ++i) {
      FKDB_ASSIGN(const auto bytes, sets_[i].RecordBytes(image.ordinal));
      auto view = RecordView::Open(bytes, spec_);
      if (!view) return Fail(view.error().code, fmt::format("{}: image '{}': {}", inputs_[i].string(), Printable(image.key), view.error().message));
      if (const std::string what = i > 0 ? Difference(views[0], *view) : ""; !what.empty()) {
        return Fail(ErrorCode::kMismatch, fmt::format("{} and {} cannot be averaged: image '{}': {}; fkdb-write --boxes-from labels the same crops",
                                                      inputs_[0].string(), inputs_[i].string(), Printable(image.key), what));
      }
      views.push_back(*std::move(view));
    }
    FKDB_ASSIGN(Record record, DecodeRecord(views[0]));
    for (const RecordView& view : views) {
      if (record.content_hash == ContentHash{}) record.content_hash = view.content_hash();
    }
    for (uint32_t crop = 0; crop < record.num_crops(); ++crop) AverageCrop(views, crop, &record);
    return EncodeRecord(spec_, record);
  }

  // Empty: they are of the same crops.
  static std::string Difference(const RecordView& a, const RecordView& b) {
    if (a.skipped() != b.skipped()) return "only one of them skipped it";
    if (a.width() != b.width() || a.height() != b.height()) {
      return fmt::format("it is {} x {} pixels in the first, {} x {} in the second", a.width(), a.height(), b.width(), b.height());
    }
    if (a.class_index() != b.class_index()) return "its class is not the same";
    const ContentHash unknown{};
    if (a.content_hash() != b.content_hash() && a.content_hash() != unknown && b.content_hash() != unknown) return "it is of another file";
    if (a.num_crops() != b.num_crops()) return fmt::format("{} and {} crops", a.num_crops(), b.num_crops());
    for (uint32_t i = 0; i < a.num_crops(); ++i) {
      const bool same_box = a.spec().boxes == BoxEncoding::kPixel ? a.pixel_box(i) == b.pixel_box(i) : a.fraction_box(i) == b.fraction_box(i);
      if (!same_box) return fmt::format("crop {} has another box", i);
      if (a.flip(i) != b.flip(i)) return fmt::format("crop {} is flipped in one of them", i);
      if (!std::ranges::equal(a.op_words(i), b.op_words(i))) return fmt::format("crop {} was changed by other operations", i);
    }
    return "";
  }

  void AverageCrop(const std::vector<RecordView>& views, uint32_t crop, Record* record) {
    std::fill(sum_.begin(), sum_.end(), 0.0);
    indices_.resize(spec_.num_indices());
    values_.resize(spec_.num_values());
    double weights = 0;
    for (size_t i = 0; i < views.size(); ++i) {
      views[i].CopyIndices(crop, indices_.data());
      views[i].CopyValues(crop, values_.data());
      if (spec_.kind == LabelKind::kLogits) dense_ = values_;
      else RecoverCrop(spec_, indices_, values_, /*tau=*/1, dense_);
      weights += weight(i);
      for (size_t c = 0; c < sum_.size(); ++c) sum_[c] += weight(i) * dense_[c];
    }
    for (size_t c = 0; c < sum_.size(); ++c) dense_[c] = static_cast<float>(sum_[c] / weights);
    QuantizeCrop(spec_, dense_, std::span(record->indices).subspan(crop * spec_.num_indices(), spec_.num_indices()),
                 std::span(record->values).subspan(crop * spec_.num_values(), spec_.num_values()));
  }

  std::span<const std::filesystem::path> inputs_;
  const AverageOptions& options_;
  std::vector<LabelSet> sets_;
  std::vector<std::string> keys_;
  LabelSpec spec_;
  std::vector<uint32_t> indices_;  // of a crop in one input
  std::vector<float> values_, dense_;
  std::vector<double> sum_;
};

}  // namespace

Result<Manifest> AverageLabelSets(std::span<const std::filesystem::path> inputs, const std::filesystem::path& out,
                                  const AverageOptions& options) {
  return Averager(inputs, options).Run(out);
}

}  // namespace fkdb
