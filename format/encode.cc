// SPDX-License-Identifier: Apache-2.0
#include <flatbuffers/flatbuffers.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "format/half.h"
#include "format/quantize.h"
#include "format/record.h"
#include "format/stored_record.h"
#include "record_generated.h"

static_assert(std::endian::native == std::endian::little, "record arrays are little-endian in place");

namespace fkdb {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;
using flatbuffers::Vector;

template <class... Args>
tl::unexpected<Error> Bad(fmt::format_string<Args...> format, Args&&... args) {
  return Fail(ErrorCode::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...));
}

Result<void> CheckShapes(const LabelSpec& spec, const Record& record) {
  const uint64_t crops = record.num_crops();
  const auto expect = [&](const char* what, uint64_t got, uint64_t expected) -> Result<void> {
    if (got == expected) return {};
    return Bad("record of {} crops: expected {} {}, got {}", crops, expected, what, got);
  };
  const bool pixel = spec.boxes == BoxEncoding::kPixel;
  if (spec.is_map() && crops > 0) FKDB_TRY(expect("cells", crops, spec.num_cells()));
  FKDB_TRY(expect("pixel boxes", record.pixel_boxes.size(), pixel ? crops : 0));
  FKDB_TRY(expect("fraction boxes", record.fraction_boxes.size(), pixel || spec.is_map() ? 0 : crops));
  FKDB_TRY(expect("indices", record.indices.size(), crops * spec.num_indices()));
  FKDB_TRY(expect("values", record.values.size(), crops * spec.num_values()));
  if (!record.ops.empty()) FKDB_TRY(expect("lists of operations", record.ops.size(), crops));
  if (crops > kMaxCropsPerImage) return Bad("{} crops in one record: at most {}", crops, kMaxCropsPerImage);
  uint64_t op_bytes = 0;
  for (const auto& ops : record.ops) {
    for (const CropOp& op : ops) {
      if (InfoOf(op.kind) == nullptr) return Bad("operation {} is not known", static_cast<unsigned>(op.kind));
    }
    if (ops.size() > kMaxOpsPerCrop) return Bad("{} operations of one crop: at most {}", ops.size(), kMaxOpsPerCrop);
    op_bytes += 4 + ops.size() * 4 * (3 + kMaxOpValues);
  }
  if (const uint64_t bound = RecordBytesBound(spec, crops) + op_bytes; bound > kMaxRecordBytes) {
    return Fail(ErrorCode::kResourceExhausted,
                fmt::format("a record of {} crops takes up to {} bytes: at most {}; store fewer "
                            "crops or a smaller top-k",
                            crops, bound, kMaxRecordBytes));
  }
  return {};
}

// What a narrower type or a code could hide must be seen before it is stored.
Result<void> CheckLabels(const LabelSpec& spec, const Record& record) {
  for (const PixelBox& b : record.pixel_boxes) {
    if (b.height == 0 || b.width == 0 || uint64_t{b.top} + b.height > record.height ||
        uint64_t{b.left} + b.width > record.width) {
      return Bad("box [{}, {}, {}, {}] leaves the image of {} x {} pixels", b.top, b.left, b.height, b.width,
                 record.width, record.height);
    }
  }
  for (const uint32_t index : record.indices) {
    if (index >= spec.num_classes) return Bad("index {}: expected below {} classes", index, spec.num_classes);
  }
  if (spec.is_map() && std::any_of(record.flips.begin(), record.flips.end(), [](uint8_t flip) { return flip; })) {
    return Bad("a flip of a label map's cell");
  }
  if (!spec.packed()) return {};
  const uint32_t n = spec.num_values();
  for (uint32_t i = 0; i < record.num_crops() && n > 0; ++i) {
    const auto values = std::span(record.values).subspan(size_t{i} * n, n);
    if (auto valid = ValidateValues(spec, i, values); !valid) return Bad("{}", valid.error().message);
  }
  return {};
}

template <class To, class From>
std::vector<To> Narrowed(const std::vector<From>& from) {
  return {from.begin(), from.end()};
}

std::vector<uint8_t> FlipBits(const std::vector<uint8_t>& flips) {
  std::vector<uint8_t> bits((flips.size() + 7) / 8);
  for (size_t i = 0; i < flips.size(); ++i) {
    bits[i >> 3] |= static_cast<uint8_t>((flips[i] ? 1u : 0u) << (i & 7));
  }
  return bits;
}

std::vector<uint16_t> Halves(const LabelSpec& spec, const Record& record) {
  const uint32_t n = spec.num_values();
  std::vector<uint16_t> halves(record.values.size());
  if (spec.values == ValueEncoding::kBf16) {
    std::transform(record.values.begin(), record.values.end(), halves.begin(), Bf16FromFloat);
    return halves;
  }
  for (size_t crop = 0; crop < record.num_crops(); ++crop) {
    RoundToHalf(spec, std::span(record.values).subspan(crop * n, n), std::span(halves).subspan(crop * n, n));
  }
  return halves;
}

// The classes of the image, ascending, if with them the record takes fewer bits than without.
std::vector<uint32_t> MakePalette(const LabelSpec& spec, const Record& record) {
  std::vector<uint32_t> palette = record.indices;
  std::sort(palette.begin(), palette.end());
  palette.erase(std::unique(palette.begin(), palette.end()), palette.end());
  if (!PaletteIsWorthIt(spec, record.width, record.height, record.num_crops(), static_cast<uint32_t>(palette.size()))) palette.clear();
  return palette;
}

std::vector<uint8_t> PackCrops(const LabelSpec& spec, const Record& record, const std::vector<uint32_t>& palette) {
  const PackedLayout layout = LayOutPacked(spec, record.width, record.height, record.num_crops(),
                                           static_cast<uint32_t>(palette.size()));
  const uint32_t rows = layout.row_bits, columns = layout.column_bits;
  BitWriter bits;
  for (uint32_t i = 0; i < record.num_crops(); ++i) {
    if (spec.boxes == BoxEncoding::kPixel) {
      const PixelBox& b = record.pixel_boxes[i];
      bits.Put(b.top, rows);
      bits.Put(b.left, columns);
      bits.Put(b.height - 1, rows);
      bits.Put(b.width - 1, columns);
    } else {
      const FractionBox& b = record.fraction_boxes[i];
      for (const float f : {b.top, b.left, b.height, b.width}) {
        bits.Put(rows == 32 ? std::bit_cast<uint32_t>(f) : HalfFromFloat(f), rows);
      }
    }
    bits.Put(record.flips[i] ? 1 : 0, 1);
    for (uint32_t k = 0; k < spec.num_indices(); ++k) {
      const uint32_t index = record.indices[size_t{i} * spec.num_indices() + k];
      const auto position = std::lower_bound(palette.begin(), palette.end(), index) - palette.begin();
      bits.Put(palette.empty() ? index : static_cast<uint64_t>(position), layout.index_bits);
    }
    PackValues(spec, record.values.data() + size_t{i} * spec.num_values(), &bits);
  }
  for (const uint32_t class_index : palette) bits.Put(class_index, layout.class_bits);
  return std::move(bits).Finish();
}

void StoreBoxes(const LabelSpec& spec, const Record& record, StoredRecord* out) {
  if (spec.boxes == BoxEncoding::kGrid) return;
  if (spec.boxes == BoxEncoding::kPixel) {
    std::vector<uint32_t> flat;
    flat.reserve(record.pixel_boxes.size() * 4);
    for (const PixelBox& b : record.pixel_boxes) flat.insert(flat.end(), {b.top, b.left, b.height, b.width});
    // 16 bits a coordinate as long as both sides of the image fit.
    if (record.width > 65535 || record.height > 65535) {
      out->boxes_u32 = std::move(flat);
    } else {
      out->boxes_u16 = Narrowed<uint16_t>(flat);
    }
    return;
  }
  std::vector<float> flat;
  for (const FractionBox& b : record.fraction_boxes) flat.insert(flat.end(), {b.top, b.left, b.height, b.width});
  if (spec.boxes == BoxEncoding::kFractionF32) {
    out->boxes_f32 = std::move(flat);
  } else {
    out->boxes_f16.resize(flat.size());
    std::transform(flat.begin(), flat.end(), out->boxes_f16.begin(), HalfFromFloat);
  }
}

void StoreArrays(const LabelSpec& spec, const Record& record, StoredRecord* out) {
  if (record.num_crops() == 0) return;
  if (spec.packed()) {
    const std::vector<uint32_t> palette = MakePalette(spec, record);
    out->packed = PackCrops(spec, record, palette);
    out->palette_size = static_cast<uint32_t>(palette.size());
  } else {
    if (spec.values == ValueEncoding::kF32) {
      out->values_f32 = record.values;
    } else {
      out->values_16 = Halves(spec, record);
    }
    if (spec.wide_indices()) {
      out->indices_u32 = record.indices;
    } else {
      out->indices_u16 = Narrowed<uint16_t>(record.indices);
    }
    StoreBoxes(spec, record, out);
    out->flips = FlipBits(record.flips);
  }
  for (const auto& ops : record.ops) {
    AppendOpWords(ops, &out->op_words);
    out->op_ends.push_back(static_cast<uint32_t>(out->op_words.size()));
  }
  if (out->op_words.empty()) out->op_ends.clear();
}

}  // namespace

std::vector<std::byte> BuildRecord(const LabelSpec& spec, const StoredRecord& record) {
  FlatBufferBuilder builder(1024 + record.packed.size());
  // A vector that is absent when there is nothing in it.
  const auto vector = [&]<class T>(const std::vector<T>& elements) {
    return elements.empty() ? Offset<Vector<T>>() : builder.CreateVector(elements);
  };
  // The order is part of a record's bytes.
  const auto packed = vector(record.packed);
  const auto values_f32 = vector(record.values_f32);
  const auto values_16 = vector(record.values_16);
  const auto indices_u16 = vector(record.indices_u16);
  const auto indices_u32 = vector(record.indices_u32);
  const auto boxes_u16 = vector(record.boxes_u16);
  const auto boxes_u32 = vector(record.boxes_u32);
  const auto boxes_f32 = vector(record.boxes_f32);
  const auto boxes_f16 = vector(record.boxes_f16);
  const auto flips = vector(record.flips);
  const auto op_words = vector(record.op_words);
  const auto op_ends = vector(record.op_ends);
  Offset<flatbuffers::String> reason;
  if (!record.skip_reason.empty()) reason = builder.CreateString(record.skip_reason.data(), record.skip_reason.size());
  uint64_t hash[2];
  std::memcpy(hash, record.content_hash.data(), sizeof hash);
  const fb::Hash128 content_hash(hash[0], hash[1]);

  fb::RecordBuilder table(builder);
  const auto add = [&](auto method, const auto& offset) {
    if (!offset.IsNull()) (table.*method)(offset);
  };
  table.add_key_hash(record.key_hash);
  table.add_width(record.width);
  table.add_height(record.height);
  table.add_num_crops(record.num_crops);
  table.add_class_index(record.class_index);
  table.add_content_hash(&content_hash);
  add(&fb::RecordBuilder::add_packed, packed);
  table.add_palette_size(record.palette_size);
  add(&fb::RecordBuilder::add_op_ends, op_ends);
  add(&fb::RecordBuilder::add_op_words, op_words);
  table.add_exif(static_cast<uint8_t>(record.exif));
  add(&fb::RecordBuilder::add_skip_reason, reason);
  add(&fb::RecordBuilder::add_flips, flips);
  add(&fb::RecordBuilder::add_boxes_u16, boxes_u16);
  add(&fb::RecordBuilder::add_boxes_u32, boxes_u32);
  add(&fb::RecordBuilder::add_boxes_f32, boxes_f32);
  add(&fb::RecordBuilder::add_boxes_f16, boxes_f16);
  add(&fb::RecordBuilder::add_indices_u16, indices_u16);
  add(&fb::RecordBuilder::add_indices_u32, indices_u32);
  add(&fb::RecordBuilder::add_values_f32, values_f32);
  add(spec.values == ValueEncoding::kBf16 ? &fb::RecordBuilder::add_values_bf16 : &fb::RecordBuilder::add_values_f16, values_16);
  builder.Finish(table.Finish(), fb::RecordIdentifier());

  std::vector<std::byte> bytes((builder.GetSize() + 7) / 8 * 8);
  std::memcpy(bytes.data(), builder.GetBufferPointer(), builder.GetSize());
  return bytes;
}

Result<std::vector<std::byte>> EncodeRecord(const LabelSpec& spec, const Record& record) {
  FKDB_TRY(CheckShapes(spec, record));
  FKDB_TRY(CheckLabels(spec, record));

  StoredRecord stored;
  stored.key_hash = record.key_hash;
  stored.width = record.width;
  stored.height = record.height;
  stored.num_crops = record.num_crops();
  stored.class_index = record.class_index;
  stored.content_hash = record.content_hash;
  stored.exif = record.exif;
  stored.skip_reason = std::string_view(record.skip_reason).substr(0, kMaxSkipReasonBytes);
  StoreArrays(spec, record, &stored);
  std::vector<std::byte> bytes = BuildRecord(spec, stored);

  auto view = RecordView::Open(bytes, spec);
  if (!view) return Fail(ErrorCode::kInvalidArgument, view.error().message);
  if (auto valid = view->Validate(); !valid) return Fail(ErrorCode::kInvalidArgument, valid.error().message);
  return bytes;
}

}  // namespace fkdb
