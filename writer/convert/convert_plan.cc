// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/convert_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "format/hash.h"
#include "writer/convert/box_fractions.h"
#include "writer/recipe.h"

namespace fkdb {
namespace {

constexpr uint64_t kProbed = 32;

tl::unexpected<Error> Bad(std::string message) { return Fail(ErrorCode::kInvalidArgument, std::move(message)); }

// Which of them it is.
Result<LabelKind> KindOf(LabelForm form, uint32_t k, std::optional<LabelKind> wanted) {
  const std::vector<LabelKind> kinds = KindsOf(form);
  if (wanted && std::find(kinds.begin(), kinds.end(), *wanted) != kinds.end()) return *wanted;
  std::vector<std::string_view> names;
  for (const LabelKind kind : kinds) names.push_back(Name(kind));
  if (wanted) return Bad(fmt::format("--label {}: these labels hold {}, which makes {}", Name(*wanted), Name(form), fmt::join(names, " or ")));
  if (kinds.size() == 1) return kinds[0];
  return Bad(fmt::format("the labels ({}, K = {}) are {}, and the files do not say which: say --label", Name(form), k, fmt::join(names, " or ")));
}

// What a few of the images tell about all of them.
struct Probe {
  ImageLabels first;
  uint64_t first_ordinal = 0;
  uint32_t crops = 0;        // most of an image
  bool half_values = true;   // of all
  bool half_boxes = true;
  uint32_t images = 0, images_of_pixels = 0;  // all boxes of an image are of whole pixels
};

// Whether every box is one of whole pixels.
bool AllPixels(const ImageLabels& labels, const ImageSize& size) {
  return std::all_of(labels.fraction_boxes.begin(), labels.fraction_boxes.end(), [&](const FractionBox& box) {
    return ExactPixels(box, size.width, size.height, labels.half_boxes).has_value();
  });
}

Result<Probe> ProbeLabels(LabelSource& source, const DataSet& data) {
  const uint64_t images = std::min(source.window(), data.size());
  FKDB_TRY(source.Prepare(0, images));
  std::optional<Probe> probe;
  Error last{ErrorCode::kNotFound, "no image has labels"};
  const auto look = [&](uint64_t ordinal) {
    auto labels = source.Load(ordinal);
    if (!labels) {
      last = labels.error();
      return;
    }
    std::vector<std::byte> file;
    const auto size = data.Measure(ordinal, &file);
    if (!size) {
      last = size.error();
      return;
    }
    if (!probe) probe = Probe{*labels, ordinal};
    probe->crops = std::max(probe->crops, labels->num_crops());
    probe->half_values &= labels->half_values;
    probe->half_boxes &= labels->half_boxes;
    ++probe->images;
    probe->images_of_pixels += AllPixels(*labels, *size);
  };
  const uint64_t tries = std::min(kProbed, images);
  for (uint64_t i = 0; i < tries; ++i) look(i * images / tries);
  for (uint64_t i = 0; i < images && !probe; ++i) look(i);  // most have none
  if (!probe) return Fail(std::move(last));
  probe->crops = source.most_crops().value_or(probe->crops);
  return *std::move(probe);
}

}  // namespace

std::string_view Name(LabelForm form) {
  switch (form) {
    case LabelForm::kClass:
      return "a class a crop";
    case LabelForm::kClassValue:
      return "a class and its probability a crop";
    case LabelForm::kTopK:
      return "K classes and their probabilities a crop";
    case LabelForm::kTopKRenorm:
      return "K classes and their share of each other a crop";
    case LabelForm::kAll:
      return "the probabilities of all classes";
    case LabelForm::kLabelMap:
      return "a label map";
    case LabelForm::kLogits:
      break;
  }
  return "logits";
}

// What labels of this form can be.
std::vector<LabelKind> KindsOf(LabelForm form) {
  switch (form) {
    case LabelForm::kClass:
      return {LabelKind::kHard};
    case LabelForm::kClassValue:
      return {LabelKind::kSmoothing};
    case LabelForm::kTopK:
      return {LabelKind::kMarginalSmoothing, LabelKind::kMarginalRenorm};
    case LabelForm::kTopKRenorm:
      return {LabelKind::kMarginalRenorm};
    case LabelForm::kAll:
      return {LabelKind::kFull};
    case LabelForm::kLabelMap:
      return {LabelKind::kLabelMap};
    case LabelForm::kLogits:
      break;
  }
  return {LabelKind::kLogits};
}

namespace {

// Tells these labels from another conversion's.
std::string SampleHash(const ImageLabels& labels) {
  std::string bytes;
  const auto add = [&](const auto& list) { bytes.append(reinterpret_cast<const char*>(list.data()), list.size() * sizeof(list[0])); };
  add(labels.pixel_boxes);
  add(labels.fraction_boxes);
  add(labels.flips);
  add(labels.indices);
  add(labels.values);
  return fmt::format("{:016x}", Hash64(bytes));
}

}  // namespace

Result<Manifest> PlanConversion(LabelSource& source, const DataSet& data, const ConvertOptions& options) {
  FKDB_ASSIGN(const Probe probe, ProbeLabels(source, data));
  Manifest recipe;
  LabelSpec& spec = recipe.spec;
  FKDB_ASSIGN(spec.kind, KindOf(probe.first.form, probe.first.num_values, options.kind));
  spec.num_classes = options.num_classes;
  const bool all = spec.kind == LabelKind::kFull || spec.kind == LabelKind::kLogits;
  if (spec.num_classes == 0 && all) spec.num_classes = probe.first.num_values;
  if (spec.num_classes == 0 && options.use_classes) spec.num_classes = static_cast<uint32_t>(data.class_names().size());
  if (spec.num_classes == 0) {
    return Bad("how many classes the labels are of is not known, for the images lie in no class folders: is --images the folder above them? Otherwise say --num-classes");
  }
  spec.top_k = all ? 0 : probe.first.num_values;
  if (options.top_k && *options.top_k != spec.top_k) {
    return Bad(fmt::format("--top-k {}: the labels have {} classes a crop ({})", *options.top_k, spec.top_k, source.PathOf(probe.first_ordinal)));
  }
  spec.values = options.values.value_or(probe.half_values ? ValueEncoding::kF16 : ValueEncoding::kF32);
  const BoxEncoding fractions = probe.half_boxes ? BoxEncoding::kFractionF16 : BoxEncoding::kFractionF32;
  // Where few images differ, they are what is wrong: resized since they were labelled, perhaps.
  spec.boxes = options.boxes.value_or(2 * probe.images_of_pixels > probe.images ? BoxEncoding::kPixel : fractions);
  spec.temperature = spec.kind == LabelKind::kLogits || spec.is_map() ? 1 : options.temperature;
  if (spec.is_map()) {
    if (options.crops || options.boxes) return Bad("--crops and --boxes are for crops: a label map has the cells of a grid");
    spec.boxes = BoxEncoding::kGrid;
    spec.grid_height = probe.first.grid_height;
    spec.grid_width = probe.first.grid_width;
  }
  if (spec.top_k > spec.num_classes) {
    return Bad(fmt::format("labels of {} classes a crop, and {} class folders of images: is --images the folder above the class folders? If they are not the labels' "
                           "classes, say --num-classes and --no-classes", spec.top_k, spec.num_classes));
  }
  FKDB_ASSIGN(spec, CheckLabelSpec(spec));
  recipe.augmentation = options.augmentation;
  recipe.augmentation.crops = options.crops.value_or(probe.crops);
  if (recipe.augmentation.crops < 1) return Bad("0 crops an image: expected 1 or more");
  FKDB_TRY(CheckRecordSize(spec, recipe.augmentation.crops));
  if (data.layout() != "idx") recipe.augmentation.wide_samples = kHighByte;

  const size_t classes = options.use_classes ? data.class_names().size() : 0;
  if (classes > 0 && classes != spec.num_classes && spec.kind != LabelKind::kLogits) {
    return Bad(fmt::format("labels of {} classes, the images of '{}' have {} class folders: are some missing? If they are not the labels' classes, say --no-classes",
                           spec.num_classes, data.name(), classes));
  }
  recipe.data_set = Describe(data, options.use_classes);
  recipe.teachers = options.teachers;
  recipe.imported_from = options.format;
  recipe.imported_sample = SampleHash(probe.first);
  recipe.provenance = options.provenance;
  return recipe;
}

}  // namespace fkdb
