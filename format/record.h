// SPDX-License-Identifier: Apache-2.0
// The labelled crops of one image: as an owner that is encoded (Record), and as a view of encoded
// bytes that copies nothing (RecordView). record.fbs is the schema, FORMAT.md the meaning.
//
//   Record   key_hash, width, height, class_index, content_hash, exif, skip_reason
//            boxes (M), flips (M), ops (M), indices (M, num_indices), values (M, num_values), row-major
//
// A skipped image has no crops and says why; any other has at least one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/box.h"
#include "format/crop_op.h"
#include "format/hash.h"
#include "format/label_spec.h"
#include "format/packed.h"
#include "format/result.h"

namespace fkdb {

// On disk, never change.
enum class ExifConvention : uint8_t {
  kIgnored = 0,  // boxes count the pixels as stored; an EXIF orientation was not applied
};

constexpr int32_t kNoClass = -1;
constexpr size_t kMaxSkipReasonBytes = 1024;

struct Record {
  uint64_t key_hash = 0;  // Hash64 of the key
  uint32_t width = 0;     // of the original image, pixels; 0 x 0 if it could not be read
  uint32_t height = 0;
  int32_t class_index = kNoClass;
  ContentHash content_hash{};
  ExifConvention exif = ExifConvention::kIgnored;
  std::string skip_reason;  // empty unless the image was skipped

  std::vector<PixelBox> pixel_boxes;        // (M), if spec.boxes is kPixel
  std::vector<FractionBox> fraction_boxes;  // (M), if it is a fraction; a label map has neither
  std::vector<uint8_t> flips;               // (M), 0 or 1; the flip follows crop and resize
  std::vector<std::vector<CropOp>> ops;     // (M), or empty where no crop has any
  std::vector<uint32_t> indices;            // (M, spec.num_indices())
  std::vector<float> values;                // (M, spec.num_values()), not yet rounded

  uint32_t num_crops() const { return static_cast<uint32_t>(flips.size()); }
};

// The record's bytes, a multiple of 8 long. Values are rounded as the spec's encoding wants
// (format/quantize.h). The result always passes RecordView::Open and Validate.
// Errors: InvalidArgument (what is wrong with the record), ResourceExhausted (over 1 GiB).
Result<std::vector<std::byte>> EncodeRecord(const LabelSpec& spec, const Record& record);

// Reads a record where it lies. The view borrows `bytes` (8-byte aligned) and the spec's values.
class RecordView {
 public:
  // Runs the FlatBuffers verifier and checks that every array has the length the spec and the
  // number of crops ask for: after this no read leaves `bytes`. Errors: Corruption.
  static Result<RecordView> Open(std::span<const std::byte> bytes, const LabelSpec& spec);

  // Checks what crop `crop` says: box inside the image, indices distinct and below C, values
  // finite, a distribution, and descending where the kind wants it. Errors: Corruption.
  Result<void> ValidateCrop(uint32_t crop) const;
  // The same, and hands out what it looked at: indices (spec().num_indices()), values
  // (spec().num_values()); what fails is not to be used.
  Result<void> ReadCrop(uint32_t crop, PixelBox* box, uint32_t* indices, float* values) const;
  // The same, the label as format/compact.h has it. Writes up to kBitPadding bytes behind the values.
  Result<void> ReadCompactCrop(uint32_t crop, PixelBox* box, std::byte* indices, std::byte* values) const;
  // All of them.
  Result<void> Validate() const;

  uint64_t key_hash() const;
  uint32_t width() const { return width_; }
  uint32_t height() const { return height_; }
  int32_t class_index() const;
  ContentHash content_hash() const;
  ExifConvention exif() const;
  bool skipped() const { return num_crops_ == 0; }
  std::string_view skip_reason() const;

  uint32_t num_crops() const { return num_crops_; }
  const LabelSpec& spec() const { return spec_; }

  // crop < num_crops() for all of these.
  PixelBox pixel_box(uint32_t crop) const;        // of a fraction box: ToPixels
  FractionBox fraction_box(uint32_t crop) const;  // only if spec().boxes is a fraction or the grid
  bool flip(uint32_t crop) const;
  void CopyIndices(uint32_t crop, uint32_t* out) const;  // (spec().num_indices())
  void CopyValues(uint32_t crop, float* out) const;      // (spec().num_values())
  // The crop's further operations. Errors: Corruption; Unsupported (one of a newer version).
  Result<std::vector<CropOp>> Ops(uint32_t crop) const;
  std::span<const uint32_t> op_words(uint32_t crop) const;  // the same, as stored
  bool has_ops() const { return !op_ends_.empty(); }

  // The stored arrays themselves, no copy; empty where the spec stores them otherwise.
  std::span<const uint16_t> indices_u16() const { return indices_u16_; }  // (M, num_indices)
  std::span<const uint32_t> indices_u32() const { return indices_u32_; }  // (M, num_indices)
  std::span<const float> values_f32() const { return values_f32_; }       // (M, num_values)
  std::span<const uint16_t> values_16() const { return values_16_; }      // (M, num_values), f16 or bf16
  std::span<const uint16_t> boxes_u16() const { return boxes_u16_; }      // (M, 4)
  std::span<const uint32_t> boxes_u32() const { return boxes_u32_; }      // (M, 4)
  std::span<const float> boxes_f32() const { return boxes_f32_; }         // (M, 4)
  std::span<const uint16_t> boxes_f16() const { return boxes_f16_; }      // (M, 4)
  std::span<const uint8_t> flip_bits() const { return flips_; }           // (ceil(M / 8)), bit i % 8
  std::span<const uint8_t> packed_bits() const { return packed_; }        // format/packed.h
  const PackedLayout& packed_layout() const { return layout_; }

  // How many bits of the record each part takes; the rest is its header.
  struct PartBits {
    uint64_t boxes = 0, flips = 0, indices = 0, values = 0, ops = 0;
  };
  PartBits CountBits() const;

 private:
  RecordView(const void* table, const LabelSpec& spec) : table_(table), spec_(spec) {}

  // False if an index is behind the palette's end; it is then the largest Index.
  template <class Index>
  bool Indices(uint32_t crop, Index* out) const;
  // What ReadCrop does before the label's values.
  Result<void> ReadBox(uint32_t crop, PixelBox* box) const;
  template <class Index>
  Result<void> ReadIndices(uint32_t crop, Index* out) const;

  Result<void> BindArrays();
  Result<void> BindPacked();
  Result<void> BindOps();

  const void* table_;  // the FlatBuffers table
  LabelSpec spec_;
  uint32_t width_ = 0, height_ = 0;
  uint32_t num_crops_ = 0;
  std::span<const uint8_t> flips_, packed_;
  std::span<const uint16_t> boxes_u16_, boxes_f16_, indices_u16_, values_16_;
  std::span<const uint32_t> boxes_u32_, indices_u32_, op_ends_, op_words_;
  std::span<const float> boxes_f32_, values_f32_;
  PackedLayout layout_;
};

// All crops at once, as an owner, values as a reader sees them; checks everything that
// RecordView::Validate checks on the way. Errors: Corruption.
Result<Record> DecodeRecord(const RecordView& view);

// Whether one crop's values (num_values) are what the kind asks for: finite, a distribution up to
// what its encoding's rounding adds, descending where they are the K largest. Errors: Corruption.
Result<void> ValidateValues(const LabelSpec& spec, uint32_t crop, std::span<const float> values);

}  // namespace fkdb
