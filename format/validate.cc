// SPDX-License-Identifier: Apache-2.0
// What a record says, checked for meaning: crop by crop where it lies, or all at once while it is
// decoded.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "format/packed_crops.h"
#include "format/record.h"

namespace fkdb {
namespace {

template <class... Args>
tl::unexpected<Error> Corrupt(fmt::format_string<Args...> format, Args&&... args) {
  return Fail(ErrorCode::kCorruption, fmt::format(format, std::forward<Args>(args)...));
}

constexpr size_t kFew = 16;  // indices or values a crop that need no heap

// Room for `count` numbers.
template <class T>
class FewOrMany {
 public:
  explicit FewOrMany(size_t count) : many_(count > kFew ? count : 0) {}
  T* data() { return many_.empty() ? few_ : many_.data(); }

 private:
  T few_[kFew];
  std::vector<T> many_;
};

template <class Index>
bool AllDistinct(std::span<const Index> indices) {
  if (indices.size() <= kFew) {
    for (size_t i = 1; i < indices.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (indices[i] == indices[j]) return false;
      }
    }
    return true;
  }
  std::vector<Index> sorted(indices.begin(), indices.end());
  std::sort(sorted.begin(), sorted.end());
  return std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end();
}

Result<void> CheckBox(const RecordView& view, uint32_t crop, const PixelBox& b) {
  if (b.width > 0 && b.height > 0 && uint64_t{b.top} + b.height <= view.height() &&
      uint64_t{b.left} + b.width <= view.width()) {
    return {};
  }
  return Corrupt("crop {}: box [{}, {}, {}, {}] is not inside the image of {} x {} pixels", crop, b.top, b.left, b.height,
                 b.width, view.width(), view.height());
}

Result<void> CheckBox(const RecordView& view, uint32_t crop, const FractionBox& b) {
  // A whole-pixel box divided by the image's size may end a rounding of each number above 1.
  const float end = view.spec().boxes == BoxEncoding::kFractionF16 ? 1 + 1e-3f : 1 + 1e-6f;
  if (b.top >= 0 && b.left >= 0 && b.height > 0 && b.width > 0 && b.top + b.height <= end && b.left + b.width <= end) {
    return {};
  }
  return Corrupt("crop {}: box [{}, {}, {}, {}] is not inside the image", crop, b.top, b.left, b.height, b.width);
}

// Coded probabilities cannot be wrong: whatever the bits, they make a distribution.
bool ValuesCanBeWrong(const LabelSpec& spec) { return !spec.packed() || spec.kind == LabelKind::kLogits; }

Result<std::vector<CropOp>> CheckedOps(const RecordView& view, uint32_t crop) {
  auto ops = view.Ops(crop);
  if (!ops) return Fail(ops.error().code, fmt::format("crop {}: {}", crop, ops.error().message));
  return ops;
}

// The palette, and the bits that no crop uses.
Result<void> CheckPackedRest(const RecordView& view) {
  const std::span<const uint8_t> packed = view.packed_bits();
  if (packed.empty()) return {};
  const PackedLayout& layout = view.packed_layout();
  BitReader palette(packed.data(), layout.palette_at);
  uint64_t before = 0;
  for (uint32_t i = 0; i < layout.palette_size; ++i) {
    const uint64_t class_index = palette.Next(layout.class_bits);
    if (class_index >= view.spec().num_classes || (i > 0 && class_index <= before)) {
      return Corrupt("record: the palette is not ascending and below {} classes", view.spec().num_classes);
    }
    before = class_index;
  }
  const auto tail = packed.subspan(layout.all_bits / 8);
  if (tail[0] >> (layout.all_bits % 8) != 0 || std::any_of(tail.begin() + 1, tail.end(), [](uint8_t b) { return b; })) {
    return Corrupt("record: bits after the packed crops are not zero");
  }
  return {};
}

// Room for boxes, flips and indices.
void SizeCrops(const RecordView& view, Record* record) {
  const BoxEncoding boxes = view.spec().boxes;
  const uint32_t crops = view.num_crops();
  record->pixel_boxes.resize(boxes == BoxEncoding::kPixel ? crops : 0);
  record->fraction_boxes.resize(boxes == BoxEncoding::kFractionF32 || boxes == BoxEncoding::kFractionF16 ? crops : 0);
  record->flips.resize(crops);
  record->indices.resize(size_t{crops} * view.spec().num_indices());
}

}  // namespace

Result<void> ValidateValues(const LabelSpec& spec, uint32_t crop, std::span<const float> values) {
  if (spec.kind == LabelKind::kLogits || spec.is_map()) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) return Corrupt("crop {}: {} {} is {}", crop, spec.is_map() ? "score" : "logit", i, values[i]);
    }
    return {};
  }
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const float p = values[i];
    if (!(p >= 0 && p <= 1.01f)) return Corrupt("crop {}: probability {} is {}", crop, i, p);
    if (spec.kind != LabelKind::kFull && i > 0 && p > values[i - 1]) {
      return Corrupt("crop {}: probability {} is {}, more than the one before, {}", crop, i, p, values[i - 1]);
    }
    sum += p;
  }
  // What rounding may add: f16 errs by half a unit of 2^-11 or less a value (subnormals: 2^-25).
  // Packed labels are checked before they are packed, and imports may come from f16 files.
  const double slack =
      spec.values == ValueEncoding::kF32 ? 1e-4 : 5e-3 + static_cast<double>(values.size()) * 0x1p-25;
  if (sum > 1 + slack) return Corrupt("crop {}: probabilities sum to {}", crop, sum);
  const bool needs_mass = spec.kind == LabelKind::kFull || spec.kind == LabelKind::kMarginalRenorm;
  if (needs_mass && !(sum >= 0x1p-100)) return Corrupt("crop {}: probabilities sum to {}", crop, sum);
  if (spec.kind == LabelKind::kFull && sum < 1 - slack) {
    return Corrupt("crop {}: the probabilities of all classes sum to {}", crop, sum);
  }
  return {};
}

Result<void> RecordView::ReadBox(uint32_t crop, PixelBox* box) const {
  *box = pixel_box(crop);
  if (has_ops()) FKDB_TRY(CheckedOps(*this, crop));
  if (spec_.boxes == BoxEncoding::kGrid) return flip(crop) ? Corrupt("crop {}: a flip of a label map's cell", crop) : Result<void>();
  if (spec_.boxes == BoxEncoding::kPixel) return CheckBox(*this, crop, *box);
  return CheckBox(*this, crop, fraction_box(crop));
}

template <class Index>
Result<void> RecordView::ReadIndices(uint32_t crop, Index* out) const {
  const std::span<const Index> indices(out, spec_.num_indices());
  if (!Indices(crop, out)) return Corrupt("crop {}: an index beyond its palette of {} classes", crop, layout_.palette_size);
  for (const Index index : indices) {
    if (index >= spec_.num_classes) {
      return Corrupt("crop {}: index {}, expected below {} classes", crop, index, spec_.num_classes);
    }
  }
  if (!AllDistinct(indices)) return Corrupt("crop {}: an index comes twice", crop);
  return {};
}

Result<void> RecordView::ReadCrop(uint32_t crop, PixelBox* box, uint32_t* indices, float* values) const {
  FKDB_TRY(ReadBox(crop, box));
  FKDB_TRY(ReadIndices(crop, indices));
  const size_t v = spec_.num_values();
  if (v == 0) return {};
  CopyValues(crop, values);
  return ValuesCanBeWrong(spec_) ? ValidateValues(spec_, crop, {values, v}) : Result<void>();
}

Result<void> RecordView::ReadCompactCrop(uint32_t crop, PixelBox* box, std::byte* indices, std::byte* values) const {
  FKDB_TRY(ReadBox(crop, box));
  if (spec_.wide_indices()) {
    FKDB_TRY(ReadIndices(crop, reinterpret_cast<uint32_t*>(indices)));
  } else {
    FKDB_TRY(ReadIndices(crop, reinterpret_cast<uint16_t*>(indices)));
  }
  const size_t v = spec_.num_values();
  if (v == 0) return {};
  if (ValuesCanBeWrong(spec_)) {
    FewOrMany<float> checked(v);
    CopyValues(crop, checked.data());
    FKDB_TRY(ValidateValues(spec_, crop, {checked.data(), v}));
  }
  if (spec_.packed()) {
    CopyBits(packed_.data(), crop * layout_.crop_bits + layout_.values_at, layout_.crop_bits - layout_.values_at,
             reinterpret_cast<uint8_t*>(values));
  } else if (spec_.values == ValueEncoding::kF32) {
    std::memcpy(values, &values_f32_[crop * v], v * sizeof(float));
  } else {
    std::memcpy(values, &values_16_[crop * v], v * sizeof(uint16_t));
  }
  return {};
}

Result<void> RecordView::ValidateCrop(uint32_t crop) const {
  FewOrMany<uint32_t> indices(spec_.num_indices());
  FewOrMany<float> values(spec_.num_values());
  PixelBox box;
  return ReadCrop(crop, &box, indices.data(), values.data());
}

Result<void> RecordView::Validate() const {
  if (ValuesCanBeWrong(spec_)) {
    FKDB_TRY(DecodeRecord(*this));
    return {};
  }
  if (IsReadAtOnce(*this)) {
    Record record;
    SizeCrops(*this, &record);
    if (ReadPackedCrops(*this, /*with_values=*/false, &record)) return CheckPackedRest(*this);
  }
  FewOrMany<uint32_t> indices(spec_.num_indices());
  PixelBox box;
  for (uint32_t crop = 0; crop < num_crops_; ++crop) {
    FKDB_TRY(ReadBox(crop, &box));
    FKDB_TRY(ReadIndices(crop, indices.data()));
  }
  return CheckPackedRest(*this);
}

Result<Record> DecodeRecord(const RecordView& view) {
  const LabelSpec& spec = view.spec();
  const uint32_t crops = view.num_crops();
  const bool pixel = spec.boxes == BoxEncoding::kPixel;
  Record record;
  record.key_hash = view.key_hash();
  record.width = view.width();
  record.height = view.height();
  record.class_index = view.class_index();
  record.content_hash = view.content_hash();
  record.exif = view.exif();
  record.skip_reason = view.skip_reason();
  SizeCrops(view, &record);
  record.values.resize(size_t{crops} * spec.num_values());
  record.ops.resize(view.has_ops() ? crops : 0);
  const bool all_read = ReadPackedCrops(view, /*with_values=*/true, &record);
  for (uint32_t i = 0; i < crops && !all_read; ++i) {
    PixelBox box;
    FKDB_TRY(view.ReadCrop(i, &box, record.indices.data() + size_t{i} * spec.num_indices(),
                           record.values.data() + size_t{i} * spec.num_values()));
    if (pixel) {
      record.pixel_boxes[i] = box;
    } else if (!record.fraction_boxes.empty()) {
      record.fraction_boxes[i] = view.fraction_box(i);
    }
    record.flips[i] = view.flip(i);
    if (view.has_ops()) {
      FKDB_ASSIGN(record.ops[i], view.Ops(i));
    }
  }
  FKDB_TRY(CheckPackedRest(view));
  return record;
}

}  // namespace fkdb
