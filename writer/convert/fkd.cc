// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/fkd.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "format/half.h"
#include "writer/convert/box_fractions.h"
#include "writer/convert/file_source.h"
#include "writer/convert/pickle_writer.h"
#include "writer/convert/zip_file.h"

namespace fkdb {
namespace {

tl::unexpected<Error> Bad(std::string what) { return Fail(ErrorCode::kCorruption, std::move(what)); }

Result<std::vector<uint32_t>> LabelClasses(const Array& array) {
  auto classes = ClassesOf(array);
  if (!classes) return Fail(classes.error().code, "label: " + classes.error().message);
  return classes;
}

}  // namespace

Result<ImageLabels> ParseFkd(const PickleValue& root, uint32_t num_classes) {
  const auto parts = root.items();
  const auto is_array = [](const PickleValue* value) { return value->type() == PickleValue::Type::kArray; };
  if (!root.is_sequence() || parts.size() != 3 || !std::all_of(parts.begin(), parts.end(), is_array)) {
    std::string got = root.What();
    if (root.is_sequence()) {
      for (const PickleValue* part : parts.first(std::min<size_t>(parts.size(), 3))) got += (part == parts[0] ? ": " : ", ") + part->What();
    }
    return Bad(fmt::format("expected a list of three arrays, coords, flip and label; got {}", got));
  }
  const Array &coords = parts[0]->array(), &flip = parts[1]->array(), &label = parts[2]->array();
  const uint64_t crops = flip.size();
  if (crops < 1 || crops > kMaxCropsPerImage) return Bad(fmt::format("{} crops: expected 1 to {}", crops, kMaxCropsPerImage));
  if (!coords.Is({crops, 4}) || !IsFloat(coords.dtype())) {
    return Bad(fmt::format("coords: {}, expected floats of shape ({}, 4), as many as flip has", parts[0]->What(), crops));
  }
  ImageLabels labels;
  labels.half_boxes = coords.dtype() == DType::kF16;
  const std::vector<float> sides = coords.Floats();
  for (uint64_t i = 0; i < crops; ++i) {
    labels.fraction_boxes.push_back({sides[4 * i], sides[4 * i + 1], sides[4 * i + 2], sides[4 * i + 3]});
  }
  FKDB_ASSIGN(const std::vector<int64_t> flips, flip.Integers());
  for (const int64_t f : flips) {
    if (f != 0 && f != 1) return Bad(fmt::format("flip: {}, expected 0 or 1", f));
    labels.flips.push_back(static_cast<uint8_t>(f));
  }

  const auto& shape = label.shape();
  if (shape.empty() || shape[0] != crops) return Bad(fmt::format("label: {}, expected {} crops as in flip", parts[2]->What(), crops));
  labels.half_values = label.dtype() == DType::kF16;
  if (shape.size() == 1) {
    labels.form = LabelForm::kClass;
    labels.num_values = 1;
    FKDB_ASSIGN(labels.indices, LabelClasses(label));
    return labels;
  }
  if (!IsFloat(label.dtype())) return Bad(fmt::format("label: {}, expected floats", parts[2]->What()));
  if (shape.size() == 2 && (shape[1] != 2 || num_classes == 2)) {
    labels.form = LabelForm::kAll;
    labels.num_values = static_cast<uint32_t>(std::min<uint64_t>(shape[1], UINT32_MAX));
    labels.values = label.Floats();
    return labels;
  }
  const bool pair = shape.size() == 2;
  if (!pair && (shape.size() != 3 || shape[1] != 2 || shape[2] < 1 || shape[2] > kMaxClasses)) {
    return Bad(fmt::format("label: {}, expected shape (M,), (M, 2), (M, 2, K) or (M, C)", parts[2]->What()));
  }
  labels.form = pair ? LabelForm::kClassValue : LabelForm::kTopK;
  labels.num_values = pair ? 1 : static_cast<uint32_t>(shape[2]);
  // (M, 2, K), or (M, 2): a crop's classes and then its values.
  FKDB_ASSIGN(labels.indices, LabelClasses(label.Column(0)));
  labels.values = label.Column(1).Floats();
  if (pair && std::any_of(labels.values.begin(), labels.values.end(), [](float p) { return p <= 0; })) {
    return Bad("label: a largest probability of 0: are these the probabilities of two classes (--num-classes 2)?");
  }
  return labels;
}

Result<std::unique_ptr<LabelSource>> OpenFkd(const std::filesystem::path& root, const std::filesystem::path& folder,
                                             const LabelledImages& images, uint32_t num_classes) {
  return OpenLabelFiles(root, folder, images, ".tar", [num_classes](const PickleValue& root_value) { return ParseFkd(root_value, num_classes); });
}

Result<std::vector<std::byte>> MakeFkdFile(const LabelSpec& spec, const Record& record, std::string_view stem) {
  if (spec.kind == LabelKind::kLogits || spec.is_map()) {
    return Fail(ErrorCode::kUnsupported, fmt::format("labels of kind '{}' have no form in FKD's files", Name(spec.kind)));
  }
  if (std::any_of(record.ops.begin(), record.ops.end(), [](const auto& ops) { return !ops.empty(); })) {
    return Fail(ErrorCode::kUnsupported, "its crops have augmentation besides crop and flip, which has no place in FKD's files");
  }
  const uint32_t crops = record.num_crops();
  bool half_boxes = spec.values == ValueEncoding::kF16;
  std::vector<FractionBox> boxes = record.fraction_boxes;
  if (spec.boxes == BoxEncoding::kPixel) {
    const auto exact = [&](const PixelBox& box) {
      return ExactPixels(ToFractions(box, record.width, record.height, true), record.width, record.height, true) == box;
    };
    half_boxes = half_boxes && std::all_of(record.pixel_boxes.begin(), record.pixel_boxes.end(), exact);
    for (const PixelBox& box : record.pixel_boxes) boxes.push_back(ToFractions(box, record.width, record.height, half_boxes));
  } else {
    half_boxes = spec.boxes == BoxEncoding::kFractionF16;
  }
  std::vector<float> coords;
  for (const FractionBox& box : boxes) coords.insert(coords.end(), {box.top, box.left, box.height, box.width});

  // In protocol 2, as torch.save has by default, and under the names of NumPy 1, which NumPy 2 still knows.
  PickleWriter pickle;
  pickle.BeginList();
  const auto dtype = [](bool half) { return half ? DType::kF16 : DType::kF32; };
  pickle.Add(dtype(half_boxes), {crops, 4}, coords);
  pickle.Add(DType::kBool, {crops}, std::vector<float>(record.flips.begin(), record.flips.end()));
  const bool half = spec.values == ValueEncoding::kF16 && spec.num_classes <= kHalfClasses;
  const size_t k = spec.num_indices();
  switch (spec.kind) {
    case LabelKind::kFull:
      pickle.Add(dtype(half), {crops, spec.num_classes}, record.values);
      break;
    case LabelKind::kHard:
      pickle.Add(half ? DType::kF16 : DType::kI64, {crops}, std::vector<float>(record.indices.begin(), record.indices.end()));
      break;
    default: {
      std::vector<float> label;
      for (size_t i = 0; i < crops; ++i) {
        label.insert(label.end(), record.indices.begin() + static_cast<ptrdiff_t>(i * k), record.indices.begin() + static_cast<ptrdiff_t>((i + 1) * k));
        label.insert(label.end(), record.values.begin() + static_cast<ptrdiff_t>(i * k), record.values.begin() + static_cast<ptrdiff_t>((i + 1) * k));
      }
      if (spec.kind == LabelKind::kSmoothing) {
        pickle.Add(dtype(half), {crops, 2}, label);
      } else {
        pickle.Add(dtype(half), {crops, 2, k}, label);
      }
    }
  }
  pickle.EndList();
  const std::string bytes = std::move(pickle).Finish();
  const auto as_bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  const std::string prefix = std::string(stem) + "/";
  const ZipMember members[] = {{prefix + "data.pkl", as_bytes(bytes)}, {prefix + "byteorder", as_bytes("little")}, {prefix + "version", as_bytes("3\n")}};
  return MakeZip(members);
}

}  // namespace fkdb
