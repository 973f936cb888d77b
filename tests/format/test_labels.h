// SPDX-License-Identifier: Apache-2.0
// Teachers' outputs and records for tests: every kind and encoding over unsure and sure teachers.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "format/quantize.h"
#include "format/record.h"

namespace fkdb::test {

inline const std::vector<LabelKind> kAllKinds = {LabelKind::kFull,        LabelKind::kHard,
                                                 LabelKind::kSmoothing,   LabelKind::kMarginalSmoothing,
                                                 LabelKind::kMarginalRenorm, LabelKind::kLogits};
inline const std::vector<ValueEncoding> kAllValues = {ValueEncoding::kF32, ValueEncoding::kF16, ValueEncoding::kPacked};
inline const std::vector<BoxEncoding> kAllBoxes = {BoxEncoding::kPixel, BoxEncoding::kFractionF32,
                                                  BoxEncoding::kFractionF16};

inline LabelSpec MakeSpec(LabelKind kind, uint32_t classes, uint32_t top_k,
                          ValueEncoding values = ValueEncoding::kF16, BoxEncoding boxes = BoxEncoding::kPixel) {
  LabelSpec spec;
  spec.kind = kind;
  spec.num_classes = classes;
  spec.top_k = top_k;
  spec.values = values;
  spec.boxes = boxes;
  return *CheckLabelSpec(spec);
}

inline LabelSpec MakeMapSpec(uint32_t classes, uint32_t top_k, uint32_t rows, uint32_t columns, ValueEncoding values) {
  LabelSpec spec;
  spec.kind = LabelKind::kLabelMap;
  spec.num_classes = classes;
  spec.top_k = top_k;
  spec.values = values;
  spec.boxes = BoxEncoding::kGrid;
  spec.grid_height = rows;
  spec.grid_width = columns;
  return *CheckLabelSpec(spec);
}

inline std::string Describe(const LabelSpec& spec) {
  return std::string(Name(spec.kind)) + " C=" + std::to_string(spec.num_classes) + " K=" +
         std::to_string(spec.top_k) + " " + std::string(Name(spec.values)) + " " + std::string(Name(spec.boxes));
}

// Logits whose softmax is the surer the larger `spread`: 1 is nearly uniform, 8 nearly one-hot.
inline std::vector<float> RandomLogits(uint32_t classes, float spread, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> logits(classes);
  for (float& z : logits) z = spread * normal(random);
  return logits;
}

// One image of `crops` crops (a label map: of its cells), labelled by a random teacher.
inline Record RandomRecord(const LabelSpec& spec, uint32_t crops, std::mt19937_64& random, uint32_t width = 500,
                           uint32_t height = 375) {
  Record record;
  record.key_hash = random();
  record.width = width;
  record.height = height;
  record.class_index = static_cast<int32_t>(random() % spec.num_classes);
  for (uint8_t& b : record.content_hash) b = static_cast<uint8_t>(random());
  record.indices.resize(size_t{crops} * spec.num_indices());
  record.values.resize(size_t{crops} * spec.num_values());
  for (uint32_t i = 0; i < crops; ++i) {
    PixelBox box;
    box.height = 1 + static_cast<uint32_t>(random() % height);
    box.width = 1 + static_cast<uint32_t>(random() % width);
    box.top = static_cast<uint32_t>(random() % (height - box.height + 1));
    box.left = static_cast<uint32_t>(random() % (width - box.width + 1));
    if (spec.boxes == BoxEncoding::kPixel) {
      record.pixel_boxes.push_back(box);
    } else if (spec.boxes != BoxEncoding::kGrid) {
      const auto h = static_cast<float>(height), w = static_cast<float>(width);
      record.fraction_boxes.push_back({static_cast<float>(box.top) / h, static_cast<float>(box.left) / w,
                                       static_cast<float>(box.height) / h, static_cast<float>(box.width) / w});
    }
    record.flips.push_back(spec.is_map() ? 0 : random() % 2);
    std::vector<float> output = RandomLogits(spec.num_classes, 1.0f + static_cast<float>(random() % 8), random);
    if (spec.kind != LabelKind::kLogits && !spec.is_map()) Softmax(output, spec.temperature, output);
    QuantizeCrop(spec, output, std::span(record.indices).subspan(i * spec.num_indices(), spec.num_indices()),
                 std::span(record.values).subspan(i * spec.num_values(), spec.num_values()));
  }
  return record;
}

}  // namespace fkdb::test
