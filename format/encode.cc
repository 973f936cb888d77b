// SPDX-License-Identifier: Apache-2.0
#include <flatbuffers/flatbuffers.h>
#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "format/quantize.h"
#include "format/record.h"
#include "record_generated.h"

static_assert(std::endian::native == std::endian::little, "record arrays are little-endian in place");

namespace fkdb {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;
using flatbuffers::Vector;

Result<void> CheckShapes(const LabelSpec& spec, const Record& record) {
  const uint64_t crops = record.num_crops();
  const auto expect = [&](const char* what, uint64_t got, uint64_t expected) -> Result<void> {
    if (got == expected) return {};
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("record of {} crops: expected {} {}, got {}", crops, expected, what, got));
  };
  const bool pixel = spec.boxes == BoxEncoding::kPixel;
  FKDB_TRY(expect("pixel boxes", record.pixel_boxes.size(), pixel ? crops : 0));
  FKDB_TRY(expect("fraction boxes", record.fraction_boxes.size(), pixel ? 0 : crops));
  FKDB_TRY(expect("indices", record.indices.size(), crops * spec.num_indices()));
  FKDB_TRY(expect("values", record.values.size(), crops * spec.num_values()));
  if (crops > kMaxCropsPerImage) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} crops in one record: at most {}", crops, kMaxCropsPerImage));
  }
  if (const uint64_t bound = RecordBytesBound(spec, crops); bound > kMaxRecordBytes) {
    return Fail(ErrorCode::kResourceExhausted,
                fmt::format("a record of {} crops takes up to {} bytes: at most {}; store fewer "
                            "crops or a smaller top-k",
                            crops, bound, kMaxRecordBytes));
  }
  return {};
}

// 16 bits a coordinate as long as both sides of the image fit.
void AddPixelBoxes(FlatBufferBuilder& builder, const Record& record, Offset<Vector<uint16_t>>* narrow,
                   Offset<Vector<uint32_t>>* wide) {
  std::vector<uint32_t> flat;
  flat.reserve(record.pixel_boxes.size() * 4);
  for (const PixelBox& b : record.pixel_boxes) flat.insert(flat.end(), {b.top, b.left, b.height, b.width});
  if (record.width > 65535 || record.height > 65535) {
    *wide = builder.CreateVector(flat);
  } else {
    *narrow = builder.CreateVector(std::vector<uint16_t>(flat.begin(), flat.end()));
  }
}

Offset<Vector<uint16_t>> AddHalves(FlatBufferBuilder& builder, const LabelSpec& spec,
                                   const Record& record) {
  const uint32_t n = spec.num_values();
  std::vector<uint16_t> halves(record.values.size());
  for (size_t crop = 0; crop < record.num_crops(); ++crop) {
    RoundToHalf(spec, std::span(record.values).subspan(crop * n, n), std::span(halves).subspan(crop * n, n));
  }
  return builder.CreateVector(halves);
}

}  // namespace

Result<std::vector<std::byte>> EncodeRecord(const LabelSpec& spec, const Record& record) {
  FKDB_TRY(CheckShapes(spec, record));
  for (const PixelBox& b : record.pixel_boxes) {  // before a cast to 16 bits could hide it
    if (uint64_t{b.top} + b.height > record.height || uint64_t{b.left} + b.width > record.width) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("box [{}, {}, {}, {}] leaves the image of {} x {} pixels", b.top, b.left,
                              b.height, b.width, record.width, record.height));
    }
  }

  FlatBufferBuilder builder(RecordBytesBound(spec, record.num_crops()) + record.skip_reason.size());
  Offset<Vector<uint16_t>> boxes_u16, indices_u16, values_f16;
  Offset<Vector<uint32_t>> boxes_u32, indices_u32;
  Offset<Vector<float>> boxes_f32, values_f32;
  Offset<Vector<uint8_t>> flips;
  Offset<flatbuffers::String> reason;
  if (record.num_crops() > 0) {
    if (spec.num_values() > 0 && spec.values == ValueEncoding::kF16) {
      values_f16 = AddHalves(builder, spec, record);
    } else if (spec.num_values() > 0) {
      values_f32 = builder.CreateVector(record.values);
    }
    if (spec.num_indices() > 0 && spec.wide_indices()) {
      indices_u32 = builder.CreateVector(record.indices);
    } else if (spec.num_indices() > 0) {
      for (const uint32_t index : record.indices) {
        if (index >= spec.num_classes) {
          return Fail(ErrorCode::kInvalidArgument,
                      fmt::format("index {}: expected below {} classes", index, spec.num_classes));
        }
      }
      indices_u16 = builder.CreateVector(
          std::vector<uint16_t>(record.indices.begin(), record.indices.end()));
    }
    if (spec.boxes == BoxEncoding::kPixel) {
      AddPixelBoxes(builder, record, &boxes_u16, &boxes_u32);
    } else {
      static_assert(sizeof(FractionBox) == 4 * sizeof(float));
      boxes_f32 = builder.CreateVector(&record.fraction_boxes[0].top, record.fraction_boxes.size() * 4);
    }
    std::vector<uint8_t> bits((record.flips.size() + 7) / 8);
    for (size_t i = 0; i < record.flips.size(); ++i) {
      bits[i >> 3] |= static_cast<uint8_t>((record.flips[i] ? 1u : 0u) << (i & 7));
    }
    flips = builder.CreateVector(bits);
  }
  if (!record.skip_reason.empty()) {
    reason = builder.CreateString(record.skip_reason.substr(0, kMaxSkipReasonBytes));
  }

  uint64_t hash[2];
  std::memcpy(hash, record.content_hash.data(), sizeof hash);
  const fb::Hash128 content_hash(hash[0], hash[1]);
  fb::RecordBuilder table(builder);
  table.add_key_hash(record.key_hash);
  table.add_width(record.width);
  table.add_height(record.height);
  table.add_class_index(record.class_index);
  table.add_content_hash(&content_hash);
  table.add_exif(static_cast<uint8_t>(record.exif));
  if (!reason.IsNull()) table.add_skip_reason(reason);
  table.add_num_crops(record.num_crops());
  if (!flips.IsNull()) table.add_flips(flips);
  if (!boxes_u16.IsNull()) table.add_boxes_u16(boxes_u16);
  if (!boxes_u32.IsNull()) table.add_boxes_u32(boxes_u32);
  if (!boxes_f32.IsNull()) table.add_boxes_f32(boxes_f32);
  if (!indices_u16.IsNull()) table.add_indices_u16(indices_u16);
  if (!indices_u32.IsNull()) table.add_indices_u32(indices_u32);
  if (!values_f32.IsNull()) table.add_values_f32(values_f32);
  if (!values_f16.IsNull()) table.add_values_f16(values_f16);
  builder.Finish(table.Finish(), fb::RecordIdentifier());

  std::vector<std::byte> bytes((builder.GetSize() + 7) / 8 * 8);
  std::memcpy(bytes.data(), builder.GetBufferPointer(), builder.GetSize());

  auto view = RecordView::Open(bytes, spec);
  if (!view) return Fail(ErrorCode::kInvalidArgument, view.error().message);
  if (auto valid = view->Validate(); !valid) return Fail(ErrorCode::kInvalidArgument, valid.error().message);
  return bytes;
}

}  // namespace fkdb
