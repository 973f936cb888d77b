// SPDX-License-Identifier: Apache-2.0
// Internal to format/: a record as the arrays that are stored, and its bytes from them. Encode.cc makes them of a Record,
// columns_read.cc of columns; both give the same bytes for the same labels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/hash.h"
#include "format/label_spec.h"
#include "format/packed.h"
#include "format/record.h"
#include "format/result.h"

namespace fkdb {

struct StoredRecord {
  uint64_t key_hash = 0;
  uint32_t width = 0, height = 0, num_crops = 0;
  int32_t class_index = kNoClass;
  ContentHash content_hash{};
  ExifConvention exif = ExifConvention::kIgnored;
  std::string_view skip_reason;

  // Those that the spec does not store are empty, and then absent.
  uint32_t palette_size = 0;
  std::vector<uint8_t> packed, flips;
  std::vector<uint16_t> boxes_u16, boxes_f16, indices_u16, values_16;
  std::vector<uint32_t> boxes_u32, indices_u32, op_ends, op_words;
  std::vector<float> boxes_f32, values_f32;
};

std::vector<std::byte> BuildRecord(const LabelSpec& spec, const StoredRecord& record);

// Whether a record with a palette of `size` classes, all that occur in it, takes fewer bits than without.
inline bool PaletteIsWorthIt(const LabelSpec& spec, uint32_t width, uint32_t height, uint32_t crops, uint32_t size) {
  return LayOutPacked(spec, width, height, crops, size).all_bits < LayOutPacked(spec, width, height, crops, 0).all_bits;
}

}  // namespace fkdb
