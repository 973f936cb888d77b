// SPDX-License-Identifier: Apache-2.0
#include <flatbuffers/flatbuffers.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "format/half.h"
#include "format/record.h"
#include "record_generated.h"

namespace fkdb {
namespace {

const fb::Record& Table(const void* table) { return *static_cast<const fb::Record*>(table); }

template <class... Args>
tl::unexpected<Error> Corrupt(fmt::format_string<Args...> format, Args&&... args) {
  return Fail(ErrorCode::kCorruption, fmt::format(format, std::forward<Args>(args)...));
}

// Points `out` at an array of the record, which must have `expected` elements; none for 0. The
// verifier checks bounds but not that elements are aligned.
template <class T>
Result<void> Bind(const flatbuffers::Vector<T>* array, uint64_t expected, const char* name,
                  std::span<const T>* out) {
  if (expected == 0) {
    if (array != nullptr) return Corrupt("record: array {} is not expected for this label spec", name);
    return {};
  }
  const uint64_t got = array == nullptr ? 0 : array->size();
  if (got != expected) return Corrupt("record: expected {} elements in {}, got {}", expected, name, got);
  if (reinterpret_cast<uintptr_t>(array->data()) % alignof(T) != 0) {
    return Corrupt("record: array {} is not aligned to {} bytes", name, alignof(T));
  }
  *out = {array->data(), array->size()};
  return {};
}

bool AllDistinct(std::span<uint32_t> indices) {
  if (indices.size() <= 16) {
    for (size_t i = 1; i < indices.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (indices[i] == indices[j]) return false;
      }
    }
    return true;
  }
  std::sort(indices.begin(), indices.end());
  return std::adjacent_find(indices.begin(), indices.end()) == indices.end();
}

}  // namespace

Result<RecordView> RecordView::Open(std::span<const std::byte> bytes, const LabelSpec& spec) {
  if (reinterpret_cast<uintptr_t>(bytes.data()) % 8 != 0) {
    return Corrupt("record: address is not a multiple of 8");
  }
  if (bytes.size() < 16) return Corrupt("record: expected at least 16 bytes, got {}", bytes.size());
  if (bytes.size() > kMaxRecordBytes) {
    return Corrupt("record: {} bytes, expected at most {}", bytes.size(), kMaxRecordBytes);
  }
  flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(),
                                 /*max_depth=*/8, /*max_tables=*/8);
  if (!fb::VerifyRecordBuffer(verifier)) {
    return Corrupt("record: not a FlatBuffer of type '{}'", fb::RecordIdentifier());
  }
  const fb::Record* table = fb::GetRecord(bytes.data());

  RecordView view(table, spec);
  view.num_crops_ = table->num_crops();
  const uint64_t crops = view.num_crops_;
  if (crops > kMaxCropsPerImage) return Corrupt("record: {} crops, at most {}", crops, kMaxCropsPerImage);
  const bool pixel = spec.boxes == BoxEncoding::kPixel;
  const bool wide_boxes = table->width() > 65535 || table->height() > 65535;
  const bool f32 = spec.values == ValueEncoding::kF32;
  const uint64_t indices = crops * spec.num_indices(), values = crops * spec.num_values();
  FKDB_TRY(Bind(table->flips(), (crops + 7) / 8, "flips", &view.flips_));
  FKDB_TRY(Bind(table->boxes_u16(), pixel && !wide_boxes ? crops * 4 : 0, "boxes_u16", &view.boxes_u16_));
  FKDB_TRY(Bind(table->boxes_u32(), pixel && wide_boxes ? crops * 4 : 0, "boxes_u32", &view.boxes_u32_));
  FKDB_TRY(Bind(table->boxes_f32(), pixel ? 0 : crops * 4, "boxes_f32", &view.boxes_f32_));
  FKDB_TRY(Bind(table->indices_u16(), spec.wide_indices() ? 0 : indices, "indices_u16", &view.indices_u16_));
  FKDB_TRY(Bind(table->indices_u32(), spec.wide_indices() ? indices : 0, "indices_u32", &view.indices_u32_));
  FKDB_TRY(Bind(table->values_f32(), f32 ? values : 0, "values_f32", &view.values_f32_));
  FKDB_TRY(Bind(table->values_f16(), f32 ? 0 : values, "values_f16", &view.values_f16_));

  if (table->exif() != static_cast<uint8_t>(ExifConvention::kIgnored)) {
    return Corrupt("record: EXIF convention {}, expected 0", table->exif());
  }
  if (table->content_hash() == nullptr) return Corrupt("record: content hash is missing");
  const std::string_view reason = view.skip_reason();
  if (crops == 0 && reason.empty()) return Corrupt("record: no crops and no reason for it");
  if (crops > 0 && !reason.empty()) return Corrupt("record: {} crops of a skipped image", crops);
  if (reason.size() > kMaxSkipReasonBytes) return Corrupt("record: skip reason of {} bytes", reason.size());
  if (crops > 0 && (view.width() == 0 || view.height() == 0)) {
    return Corrupt("record: {} crops of an image of {} x {} pixels", crops, view.width(), view.height());
  }
  if (view.class_index() < kNoClass) return Corrupt("record: class {}", view.class_index());
  return view;
}

Result<void> RecordView::ValidateCrop(uint32_t crop) const {
  if (spec_.boxes == BoxEncoding::kPixel) {
    const PixelBox b = pixel_box(crop);
    if (b.width == 0 || b.height == 0 || uint64_t{b.top} + b.height > height() ||
        uint64_t{b.left} + b.width > width()) {
      return Corrupt("crop {}: box [{}, {}, {}, {}] is not inside the image of {} x {} pixels", crop, b.top,
                     b.left, b.height, b.width, width(), height());
    }
  } else {
    const FractionBox b = fraction_box(crop);
    // A whole-pixel box divided by the image's size may end a rounding above 1.
    constexpr float kEnd = 1 + 1e-6f;
    if (!(b.top >= 0 && b.left >= 0 && b.height > 0 && b.width > 0 && b.top + b.height <= kEnd &&
          b.left + b.width <= kEnd)) {
      return Corrupt("crop {}: box [{}, {}, {}, {}] is not inside the image", crop, b.top, b.left, b.height,
                     b.width);
    }
  }

  if (const uint32_t n = spec_.num_indices(); n > 0) {
    uint32_t few[16];
    std::vector<uint32_t> many(n > 16 ? n : 0);
    const std::span<uint32_t> indices(n > 16 ? many.data() : few, n);
    CopyIndices(crop, indices.data());
    for (const uint32_t index : indices) {
      if (index >= spec_.num_classes) {
        return Corrupt("crop {}: index {}, expected below {} classes", crop, index, spec_.num_classes);
      }
    }
    if (!AllDistinct(indices)) return Corrupt("crop {}: an index comes twice", crop);
  }

  const uint32_t n = spec_.num_values();
  if (n == 0) return {};
  const bool f32 = spec_.values == ValueEncoding::kF32;
  const size_t first = size_t{crop} * n;
  const auto value = [&](size_t i) {
    return f32 ? values_f32_[first + i] : FloatFromHalf(values_f16_[first + i]);
  };
  if (spec_.kind == LabelKind::kLogits) {
    for (size_t i = 0; i < n; ++i) {
      if (!std::isfinite(value(i))) return Corrupt("crop {}: logit {} is {}", crop, i, value(i));
    }
    return {};
  }
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    const float p = value(i);
    if (!(p >= 0 && p <= 1.01f)) return Corrupt("crop {}: probability {} is {}", crop, i, p);
    if (spec_.kind != LabelKind::kFull && i > 0 && p > value(i - 1)) {
      return Corrupt("crop {}: probability {} is {}, more than the one before, {}", crop, i, p, value(i - 1));
    }
    sum += p;
  }
  // What rounding may add: f16 errs by half a unit of 2^-11 or less a value (subnormals: 2^-25).
  const double slack = f32 ? 1e-4 : 5e-3 + n * 0x1p-25;
  if (sum > 1 + slack) return Corrupt("crop {}: probabilities sum to {}", crop, sum);
  const bool needs_mass = spec_.kind == LabelKind::kFull || spec_.kind == LabelKind::kMarginalRenorm;
  if (needs_mass && !(sum > 0)) return Corrupt("crop {}: probabilities sum to {}", crop, sum);
  if (spec_.kind == LabelKind::kFull && sum < 1 - slack) {
    return Corrupt("crop {}: the probabilities of all classes sum to {}", crop, sum);
  }
  return {};
}

Result<void> RecordView::Validate() const {
  for (uint32_t crop = 0; crop < num_crops_; ++crop) FKDB_TRY(ValidateCrop(crop));
  return {};
}

uint64_t RecordView::key_hash() const { return Table(table_).key_hash(); }
uint32_t RecordView::width() const { return Table(table_).width(); }
uint32_t RecordView::height() const { return Table(table_).height(); }
int32_t RecordView::class_index() const { return Table(table_).class_index(); }
ExifConvention RecordView::exif() const { return static_cast<ExifConvention>(Table(table_).exif()); }

ContentHash RecordView::content_hash() const {
  ContentHash hash;
  std::memcpy(hash.data(), Table(table_).content_hash(), sizeof hash);
  return hash;
}

std::string_view RecordView::skip_reason() const {
  const flatbuffers::String* reason = Table(table_).skip_reason();
  return reason == nullptr ? std::string_view() : std::string_view(reason->data(), reason->size());
}

PixelBox RecordView::pixel_box(uint32_t crop) const {
  const size_t at = size_t{crop} * 4;
  if (!boxes_u16_.empty()) {
    return {boxes_u16_[at], boxes_u16_[at + 1], boxes_u16_[at + 2], boxes_u16_[at + 3]};
  }
  if (!boxes_u32_.empty()) {
    return {boxes_u32_[at], boxes_u32_[at + 1], boxes_u32_[at + 2], boxes_u32_[at + 3]};
  }
  return ToPixels(fraction_box(crop), width(), height());
}

FractionBox RecordView::fraction_box(uint32_t crop) const {
  const size_t at = size_t{crop} * 4;
  return {boxes_f32_[at], boxes_f32_[at + 1], boxes_f32_[at + 2], boxes_f32_[at + 3]};
}

void RecordView::CopyIndices(uint32_t crop, uint32_t* out) const {
  const uint32_t n = spec_.num_indices();
  const size_t first = size_t{crop} * n;
  if (spec_.wide_indices()) {
    std::copy_n(indices_u32_.begin() + static_cast<ptrdiff_t>(first), n, out);
  } else {
    std::copy_n(indices_u16_.begin() + static_cast<ptrdiff_t>(first), n, out);
  }
}

void RecordView::CopyValues(uint32_t crop, float* out) const {
  const uint32_t n = spec_.num_values();
  const size_t first = size_t{crop} * n;
  if (spec_.values == ValueEncoding::kF32) {
    std::copy_n(values_f32_.begin() + static_cast<ptrdiff_t>(first), n, out);
  } else {
    for (uint32_t i = 0; i < n; ++i) out[i] = FloatFromHalf(values_f16_[first + i]);
  }
}

}  // namespace fkdb
