// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/record_maker.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <tuple>
#include <utility>

#include "format/text.h"
#include "writer/convert/box_fractions.h"
#include "writer/convert/convert_plan.h"

namespace fkdb {
namespace {

// The reason is part of the label set, and of its digest: where the labels lay on this machine is not.
std::string Without(const std::string& folder, std::string text) {
  for (size_t at = 0; !folder.empty() && (at = text.find(folder, at)) != std::string::npos;) text.erase(at, folder.size() + (text[at + folder.size()] == '/'));
  return text;
}

}  // namespace

Result<std::vector<std::byte>> RecordMaker::Make(uint64_t ordinal) {
  Record record;
  record.key_hash = Hash64(data_.keys()[ordinal]);
  record.class_index = recipe_.data_set.class_names.empty() ? kNoClass : data_.class_index(ordinal);
  Result<std::vector<std::byte>> encoded;
  if (const auto filled = Fill(ordinal, &record); !filled) {
    encoded = Fail(filled.error());
  } else {
    encoded = EncodeRecord(recipe_.spec, record);
  }
  if (encoded) {
    tally.crops += record.num_crops();
  } else {
    const std::string key = Printable(data_.keys()[ordinal]);
    tally.refused.Add(fmt::format("{}: {}", key, encoded.error().message));
    Error error = {encoded.error().code, fmt::format("image '{}': {}; --skip-bad converts the others", key, encoded.error().message)};
    if (!options_.skip_bad && !options_.dry_run) return Fail(std::move(error));
    if (!tally.first_refusal) tally.first_refusal = std::move(error);
    Record skipped;
    skipped.key_hash = record.key_hash;
    skipped.class_index = record.class_index;
    skipped.skip_reason = Without(options_.source.string(), encoded.error().message).substr(0, kMaxSkipReasonBytes);
    FKDB_ASSIGN(encoded, EncodeRecord(recipe_.spec, skipped));
  }
  ++tally.images;
  tally.record_bytes += encoded->size();
  return encoded;
}

Result<void> RecordMaker::Fill(uint64_t ordinal, Record* record) {
  FKDB_ASSIGN(ImageLabels labels, source_.Load(ordinal));
  FKDB_ASSIGN(const ImageSize size, data_.Measure(ordinal, &file_));
  record->width = size.width;
  record->height = size.height;
  record->content_hash = HashContent(file_);
  const LabelSpec& spec = recipe_.spec;
  const auto in = [&](ErrorCode code, std::string what) { return Fail(code, fmt::format("{}: {}", source_.PathOf(ordinal), what)); };

  const uint32_t most = recipe_.augmentation.crops;
  if (options_.crops ? labels.num_crops() < most : labels.num_crops() > most) {
    return in(ErrorCode::kMismatch, options_.crops ? fmt::format("{} crops, {} asked for; --crops takes fewer of every image", labels.num_crops(), most)
                                                   : fmt::format("{} crops, the first images have {}; --crops says how many to take", labels.num_crops(), most));
  }
  const uint32_t crops = std::min(most, labels.num_crops());
  tally.short_images += crops < most;
  const std::vector<LabelKind> kinds = KindsOf(labels.form);
  if (std::find(kinds.begin(), kinds.end(), spec.kind) == kinds.end() || labels.num_values != std::max(spec.num_values(), spec.num_indices())) {
    return in(ErrorCode::kMismatch, fmt::format("{}, K = {}: expected labels of kind {}, K = {}, as the others'", Name(labels.form),
                                                labels.num_values, Name(spec.kind), std::max(spec.num_values(), spec.num_indices())));
  }
  if (labels.grid_height != spec.grid_height || labels.grid_width != spec.grid_width) {
    return in(ErrorCode::kMismatch, fmt::format("{} x {} cells, expected {} x {}, as the others'", labels.grid_height, labels.grid_width, spec.grid_height, spec.grid_width));
  }
  if (!options_.values && spec.values == ValueEncoding::kF16 && !labels.half_values && labels.form != LabelForm::kClass) {
    return in(ErrorCode::kMismatch, "its values are no float16, the first images' are; --encoding f32 keeps them all");
  }
  if (!options_.boxes && spec.boxes == BoxEncoding::kFractionF16 && !labels.half_boxes) {
    return in(ErrorCode::kMismatch, "its boxes are no float16, the first images' are; --boxes fraction-f32 keeps them all");
  }
  tally.dropped_crops += labels.num_crops() - crops;
  labels.flips.resize(crops);
  record->flips = std::move(labels.flips);
  if (!labels.ops.empty()) labels.ops.resize(crops);
  record->ops = std::move(labels.ops);
  labels.indices.resize(size_t{crops} * spec.num_indices());
  labels.values.resize(size_t{crops} * spec.num_values());
  for (const uint32_t index : labels.indices) {
    if (index >= spec.num_classes) {
      return in(ErrorCode::kMismatch, recipe_.data_set.class_names.empty()
                                          ? fmt::format("class {}, expected below {}: --num-classes says how many there are", index, spec.num_classes)
                                          : fmt::format("class {}, and {} class folders of images: are some missing? If they are not the labels' classes, say --num-classes and "
                                                        "--no-classes", index, spec.num_classes));
    }
  }
  if (labels.form == LabelForm::kTopK || labels.form == LabelForm::kTopKRenorm) Sort(spec.top_k, &labels);
  record->indices = std::move(labels.indices);
  record->values = std::move(labels.values);
  if (const auto filled = FillBoxes(size, labels, crops, record); !filled) return in(filled.error().code, filled.error().message);
  return {};
}

void RecordMaker::Sort(size_t k, ImageLabels* labels) {
  std::vector<std::pair<float, uint32_t>> pairs(k);
  for (size_t at = 0; at < labels->values.size(); at += k) {
    const auto values = std::span(labels->values).subspan(at, k);
    if (std::is_sorted(values.begin(), values.end(), std::greater<>())) continue;
    ++tally.sorted_crops;
    for (size_t i = 0; i < k; ++i) pairs[i] = {values[i], labels->indices[at + i]};
    std::stable_sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    for (size_t i = 0; i < k; ++i) std::tie(values[i], labels->indices[at + i]) = pairs[i];
  }
}

Result<void> RecordMaker::FillBoxes(const ImageSize& size, const ImageLabels& labels, uint32_t crops, Record* record) {
  if (recipe_.spec.is_map()) return {};
  const bool pixel = recipe_.spec.boxes == BoxEncoding::kPixel;
  tally.boxes += crops;
  if (!labels.pixel_boxes.empty()) {
    for (uint32_t i = 0; i < crops; ++i) {
      const PixelBox& box = labels.pixel_boxes[i];
      if (pixel) {
        record->pixel_boxes.push_back(box);
      } else {
        record->fraction_boxes.push_back(ToFractions(box, size.width, size.height, false));
      }
    }
    return {};
  }
  for (uint32_t i = 0; i < crops; ++i) {
    const FractionBox& box = labels.fraction_boxes[i];
    if (!pixel) {
      record->fraction_boxes.push_back(box);
      continue;
    }
    const auto exact = ExactPixels(box, size.width, size.height, labels.half_boxes);
    if (!exact) {
      const std::string what = fmt::format("crop {}: box [{}, {}, {}, {}]", i, box.top, box.left, box.height, box.width);
      if (!IsInside(box)) return Fail(ErrorCode::kCorruption, what + " is not inside the image");
      if (options_.boxes != BoxEncoding::kPixel) {
        return Fail(ErrorCode::kMismatch,
                    fmt::format("{} is not one of whole pixels in an image of {} x {}. Is it the image that was labelled? If so: --boxes pixel takes the "
                                "pixels that training code shows for it, --boxes {} keeps fractions",
                                what, size.width, size.height, Name(labels.half_boxes ? BoxEncoding::kFractionF16 : BoxEncoding::kFractionF32)));
      }
      ++tally.rounded_boxes;
    }
    record->pixel_boxes.push_back(exact.value_or(ToPixels(box, size.width, size.height)));
  }
  return {};
}

}  // namespace fkdb
