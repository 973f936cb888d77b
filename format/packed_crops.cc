// SPDX-License-Identifier: Apache-2.0
#include "format/packed_crops.h"

#include <algorithm>

namespace fkdb {
namespace {

constexpr uint32_t kMostCompared = 16;  // indices a crop that are compared pair by pair

bool ReadBoxes(const RecordView& view, Record* record) {
  const PackedLayout layout = view.packed_layout();
  const uint32_t all = layout.indices_at;
  const uint8_t* const bytes = view.packed_bits().data();
  const uint64_t stride = layout.crop_bits;
  const uint32_t height = view.height(), width = view.width(), crops = view.num_crops();
  PixelBox* const boxes = record->pixel_boxes.data();
  uint8_t* const flips = record->flips.data();
  bool inside = true;
  for (uint32_t i = 0; i < crops; ++i) {
    const uint64_t word = ReadBits(bytes, i * stride, all);
    const PixelBox box = BoxOf(word, layout);
    inside &= (box.top + box.height <= height) & (box.left + box.width <= width);  // no sum is above 2^29
    boxes[i] = box;
    flips[i] = static_cast<uint8_t>(word >> (all - 1));
  }
  return inside;
}

// What an index of a crop stands for: as many as its bits can say, those behind the palette's end no class.
std::vector<uint32_t> ReadPalette(const RecordView& view) {
  const PackedLayout& layout = view.packed_layout();
  std::vector<uint32_t> palette(size_t{1} << layout.index_bits, UINT32_MAX);
  const FieldRun classes = {layout.palette_size, layout.class_bits};
  classes.Read(view.packed_bits().data(), layout.palette_at, [&](uint32_t i, uint64_t class_index) { palette[i] = static_cast<uint32_t>(class_index); });
  return palette;
}

bool ReadIndices(const RecordView& view, Record* record) {
  const PackedLayout& layout = view.packed_layout();
  const uint32_t k = view.spec().num_indices(), crops = view.num_crops(), classes = view.spec().num_classes;
  const std::vector<uint32_t> palette = layout.palette_size > 0 ? ReadPalette(view) : std::vector<uint32_t>();
  // Also column by column, (k, crops), so that the pairs of all crops are compared as vectors.
  std::vector<uint32_t> columns(size_t{k} * crops);
  uint32_t* const out = columns.data();
  const uint32_t* const known = palette.empty() ? nullptr : palette.data();
  uint32_t* to = record->indices.data();
  const uint8_t* const bytes = view.packed_bits().data();
  const FieldRun fields = {k, layout.index_bits};
  bool wrong = false;
  for (uint32_t i = 0; i < crops; ++i, to += k) {
    fields.Read(bytes, i * layout.crop_bits + layout.indices_at, [&](uint32_t j, uint64_t field) {
      const uint32_t index = known != nullptr ? known[field] : static_cast<uint32_t>(field);
      wrong |= index >= classes;
      to[j] = index;
      out[size_t{j} * crops + i] = index;
    });
  }
  for (uint32_t j = 1; j < k; ++j) {
    for (uint32_t earlier = 0; earlier < j; ++earlier) {
      const uint32_t* const a = out + size_t{j} * crops;
      const uint32_t* const b = out + size_t{earlier} * crops;
      uint32_t same = 0;
      for (uint32_t i = 0; i < crops; ++i) same |= a[i] == b[i] ? 1u : 0u;
      wrong |= same != 0;
    }
  }
  return !wrong;
}

}  // namespace

bool IsReadAtOnce(const RecordView& view) {
  const LabelSpec& spec = view.spec();
  const PackedLayout& layout = view.packed_layout();
  return spec.packed() && spec.boxes == BoxEncoding::kPixel && spec.kind != LabelKind::kLogits && spec.num_indices() <= kMostCompared && !view.skipped() &&
         !view.has_ops() && layout.indices_at <= kMaxFieldBits;
}

bool ReadPackedCrops(const RecordView& view, bool with_values, Record* record) {
  const LabelSpec& spec = view.spec();
  if (!IsReadAtOnce(view)) return false;
  if (!ReadBoxes(view, record) || !ReadIndices(view, record)) return false;
  const PackedLayout& layout = view.packed_layout();
  if (with_values) UnpackValues(spec, view.packed_bits().data(), layout.values_at, layout.crop_bits, view.num_crops(), record->values.data());
  return true;
}

}  // namespace fkdb
