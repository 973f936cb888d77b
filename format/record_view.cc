// SPDX-License-Identifier: Apache-2.0
#include <flatbuffers/flatbuffers.h>
#include <fmt/format.h>

#include <algorithm>
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
  view.width_ = table->width();
  view.height_ = table->height();
  view.num_crops_ = table->num_crops();
  const uint32_t crops = view.num_crops_;
  if (crops > kMaxCropsPerImage) return Corrupt("record: {} crops, at most {}", crops, kMaxCropsPerImage);
  if (spec.is_map() && crops > 0 && crops != spec.num_cells()) {
    return Corrupt("record: {} cells, expected {} x {}", crops, spec.grid_height, spec.grid_width);
  }
  FKDB_TRY(view.BindArrays());
  FKDB_TRY(view.BindPacked());
  FKDB_TRY(view.BindOps());

  if (table->exif() != static_cast<uint8_t>(ExifConvention::kIgnored)) {
    return Corrupt("record: EXIF convention {}, expected 0", table->exif());
  }
  if (table->content_hash() == nullptr) return Corrupt("record: content hash is missing");
  const std::string_view reason = view.skip_reason();
  if (crops == 0 && reason.empty()) return Corrupt("record: no crops and no reason for it");
  if (crops > 0 && !reason.empty()) return Corrupt("record: {} crops of a skipped image", crops);
  if (reason.size() > kMaxSkipReasonBytes) return Corrupt("record: skip reason of {} bytes", reason.size());
  if (view.class_index() < kNoClass) return Corrupt("record: class {}", view.class_index());
  return view;
}

// The arrays that the spec stores outside `packed`; those that are not due must be absent.
Result<void> RecordView::BindArrays() {
  const fb::Record& table = Table(table_);
  if (num_crops_ > 0 && (width() == 0 || height() == 0)) {
    return Corrupt("record: {} crops of an image of {} x {} pixels", num_crops_, width(), height());
  }
  const uint64_t crops = spec_.packed() ? 0 : num_crops_;
  const uint64_t indices = crops * spec_.num_indices(), values = crops * spec_.num_values();
  const auto box = [&](bool due) { return due ? crops * 4 : 0; };
  const auto value = [&](ValueEncoding encoding) { return spec_.values == encoding ? values : 0; };
  const bool pixel = spec_.boxes == BoxEncoding::kPixel, wide = width() > 65535 || height() > 65535;
  FKDB_TRY(Bind(table.flips(), (crops + 7) / 8, "flips", &flips_));
  FKDB_TRY(Bind(table.boxes_u16(), box(pixel && !wide), "boxes_u16", &boxes_u16_));
  FKDB_TRY(Bind(table.boxes_u32(), box(pixel && wide), "boxes_u32", &boxes_u32_));
  FKDB_TRY(Bind(table.boxes_f32(), box(spec_.boxes == BoxEncoding::kFractionF32), "boxes_f32", &boxes_f32_));
  FKDB_TRY(Bind(table.boxes_f16(), box(spec_.boxes == BoxEncoding::kFractionF16), "boxes_f16", &boxes_f16_));
  FKDB_TRY(Bind(table.indices_u16(), spec_.wide_indices() ? 0 : indices, "indices_u16", &indices_u16_));
  FKDB_TRY(Bind(table.indices_u32(), spec_.wide_indices() ? indices : 0, "indices_u32", &indices_u32_));
  FKDB_TRY(Bind(table.values_f32(), value(ValueEncoding::kF32), "values_f32", &values_f32_));
  FKDB_TRY(Bind(table.values_f16(), value(ValueEncoding::kF16), "values_f16", &values_16_));
  return Bind(table.values_bf16(), value(ValueEncoding::kBf16), "values_bf16", &values_16_);
}

Result<void> RecordView::BindPacked() {
  const fb::Record& table = Table(table_);
  const uint32_t palette_size = table.palette_size();
  if (!spec_.packed() || num_crops_ == 0) {
    if (palette_size > 0) return Corrupt("record: a palette is not expected for this label spec");
    return Bind(table.packed(), 0, "packed", &packed_);
  }
  if (palette_size > spec_.num_classes || palette_size > uint64_t{num_crops_} * spec_.num_indices()) {
    return Corrupt("record: a palette of {} classes for {} crops", palette_size, num_crops_);
  }
  layout_ = LayOutPacked(spec_, width(), height(), num_crops_, palette_size);
  return Bind(table.packed(), layout_.bytes(), "packed", &packed_);
}

Result<void> RecordView::BindOps() {
  const fb::Record& table = Table(table_);
  if (table.op_ends() == nullptr) return Bind(table.op_words(), 0, "op_words", &op_words_);
  FKDB_TRY(Bind(table.op_ends(), num_crops_, "op_ends", &op_ends_));
  if (op_ends_.empty()) return {};
  FKDB_TRY(Bind(table.op_words(), op_ends_.back(), "op_words", &op_words_));
  if (!std::is_sorted(op_ends_.begin(), op_ends_.end())) return Corrupt("record: op_ends are not ascending");
  return {};
}

uint64_t RecordView::key_hash() const { return Table(table_).key_hash(); }
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
  if (spec_.boxes != BoxEncoding::kPixel) return ToPixels(fraction_box(crop), width(), height());
  const uint32_t rows = layout_.row_bits, columns = layout_.column_bits;
  BitReader reader(packed_.data(), crop * layout_.crop_bits);
  PixelBox box;
  box.top = static_cast<uint32_t>(reader.Next(rows));
  box.left = static_cast<uint32_t>(reader.Next(columns));
  box.height = static_cast<uint32_t>(reader.Next(rows)) + 1;
  box.width = static_cast<uint32_t>(reader.Next(columns)) + 1;
  return box;
}

FractionBox RecordView::fraction_box(uint32_t crop) const {
  if (spec_.boxes == BoxEncoding::kGrid) {
    const float rows = static_cast<float>(spec_.grid_height), columns = static_cast<float>(spec_.grid_width);
    return {static_cast<float>(crop / spec_.grid_width) / rows, static_cast<float>(crop % spec_.grid_width) / columns, 1 / rows, 1 / columns};
  }
  const size_t at = size_t{crop} * 4;
  float numbers[4];
  for (size_t i = 0; i < 4; ++i) {
    if (!boxes_f32_.empty()) {
      numbers[i] = boxes_f32_[at + i];
    } else if (!boxes_f16_.empty()) {
      numbers[i] = FloatFromHalf(boxes_f16_[at + i]);
    } else {
      const uint32_t width = layout_.row_bits;
      const auto bits = static_cast<uint32_t>(ReadBits(packed_.data(), crop * layout_.crop_bits + i * width, width));
      numbers[i] = width == 32 ? std::bit_cast<float>(bits) : FloatFromHalf(static_cast<uint16_t>(bits));
    }
  }
  return {numbers[0], numbers[1], numbers[2], numbers[3]};
}

bool RecordView::flip(uint32_t crop) const {
  if (!spec_.packed()) return flips_[crop >> 3] >> (crop & 7) & 1;
  return ReadBits(packed_.data(), crop * layout_.crop_bits + layout_.indices_at - 1, 1) != 0;
}

template <class Index>
bool RecordView::Indices(uint32_t crop, Index* out) const {
  const uint32_t n = spec_.num_indices();
  const size_t first = size_t{crop} * n;
  bool inside = true;
  if (spec_.packed()) {
    const uint8_t* bits = packed_.data();
    const uint32_t index_bits = layout_.index_bits, class_bits = layout_.class_bits, palette_size = layout_.palette_size;
    const uint64_t palette_at = layout_.palette_at;
    BitReader reader(bits, crop * layout_.crop_bits + layout_.indices_at);
    for (uint32_t i = 0; i < n; ++i) {
      uint64_t index = reader.Next(index_bits);
      if (palette_size > 0) {
        const bool known = index < palette_size;
        index = known ? ReadBits(bits, palette_at + index * class_bits, class_bits) : UINT64_MAX;
        inside = inside && known;
      }
      out[i] = static_cast<Index>(index);
    }
  } else if (spec_.wide_indices()) {
    for (uint32_t i = 0; i < n; ++i) out[i] = static_cast<Index>(indices_u32_[first + i]);
  } else {
    for (uint32_t i = 0; i < n; ++i) out[i] = static_cast<Index>(indices_u16_[first + i]);
  }
  return inside;
}

template bool RecordView::Indices(uint32_t crop, uint16_t* out) const;
template bool RecordView::Indices(uint32_t crop, uint32_t* out) const;

void RecordView::CopyIndices(uint32_t crop, uint32_t* out) const { Indices(crop, out); }

void RecordView::CopyValues(uint32_t crop, float* out) const {
  const uint32_t n = spec_.num_values();
  const size_t first = size_t{crop} * n;
  switch (spec_.values) {
    case ValueEncoding::kF32:
      std::copy_n(values_f32_.begin() + static_cast<ptrdiff_t>(first), n, out);
      break;
    case ValueEncoding::kF16:
      for (uint32_t i = 0; i < n; ++i) out[i] = FloatFromHalf(values_16_[first + i]);
      break;
    case ValueEncoding::kBf16:
      for (uint32_t i = 0; i < n; ++i) out[i] = FloatFromBf16(values_16_[first + i]);
      break;
    case ValueEncoding::kPacked:
      UnpackValues(spec_, packed_.data(), crop * layout_.crop_bits + layout_.values_at, out);
      break;
  }
}

std::span<const uint32_t> RecordView::op_words(uint32_t crop) const {
  if (!has_ops()) return {};
  const uint32_t first = crop > 0 ? op_ends_[crop - 1] : 0;
  return op_words_.subspan(first, op_ends_[crop] - first);
}

Result<std::vector<CropOp>> RecordView::Ops(uint32_t crop) const { return ParseOpWords(op_words(crop)); }

RecordView::PartBits RecordView::CountBits() const {
  PartBits bits;
  bits.ops = 8 * (op_ends_.size_bytes() + op_words_.size_bytes());
  if (spec_.packed()) {
    const uint64_t crops = num_crops_;
    bits.boxes = num_crops_ > 0 ? crops * (layout_.indices_at - 1) : 0;
    bits.flips = crops;
    bits.indices = crops * spec_.num_indices() * layout_.index_bits + uint64_t{layout_.palette_size} * layout_.class_bits;
    bits.values = num_crops_ > 0 ? crops * (layout_.crop_bits - layout_.values_at) : 0;
    return bits;
  }
  bits.boxes = 8 * (boxes_u16_.size_bytes() + boxes_u32_.size_bytes() + boxes_f32_.size_bytes() + boxes_f16_.size_bytes());
  bits.flips = 8 * flips_.size_bytes();
  bits.indices = 8 * (indices_u16_.size_bytes() + indices_u32_.size_bytes());
  bits.values = 8 * (values_f32_.size_bytes() + values_16_.size_bytes());
  return bits;
}

}  // namespace fkdb
