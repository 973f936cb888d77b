// SPDX-License-Identifier: Apache-2.0
#include "format/compact.h"

#include <algorithm>
#include <cstring>

#include "format/half.h"
#include "format/packed.h"

namespace fkdb {

size_t CompactIndexBytes(const LabelSpec& spec) { return size_t{spec.num_indices()} * (spec.wide_indices() ? 4 : 2); }

size_t CompactValueBytes(const LabelSpec& spec) {
  switch (spec.values) {
    case ValueEncoding::kF32:
      return size_t{spec.num_values()} * 4;
    case ValueEncoding::kF16:
    case ValueEncoding::kBf16:
      return size_t{spec.num_values()} * 2;
    case ValueEncoding::kPacked:
      break;
  }
  return (PackedValueBits(spec) + 7) / 8;
}

void ExpandIndices(const LabelSpec& spec, const std::byte* indices, size_t crops, uint32_t* out) {
  const size_t count = crops * spec.num_indices();
  if (spec.wide_indices()) {
    std::copy_n(reinterpret_cast<const uint32_t*>(indices), count, out);
  } else {
    std::copy_n(reinterpret_cast<const uint16_t*>(indices), count, out);
  }
}

void ExpandValues(const LabelSpec& spec, const std::byte* values, size_t crops, float* out) {
  const size_t count = crops * spec.num_values();
  const auto* halves = reinterpret_cast<const uint16_t*>(values);
  switch (spec.values) {
    case ValueEncoding::kF32:
      if (count > 0) std::memcpy(out, values, count * sizeof(float));
      break;
    case ValueEncoding::kF16:
      std::transform(halves, halves + count, out, FloatFromHalf);
      break;
    case ValueEncoding::kBf16:
      std::transform(halves, halves + count, out, FloatFromBf16);
      break;
    case ValueEncoding::kPacked: {
      const size_t bytes = CompactValueBytes(spec);
      for (size_t i = 0; i < crops; ++i) {
        UnpackValues(spec, reinterpret_cast<const uint8_t*>(values + i * bytes), 0, out + i * spec.num_values());
      }
      break;
    }
  }
}

void PutCompactIndex(const LabelSpec& spec, std::byte* indices, size_t i, uint32_t index) {
  if (spec.wide_indices()) {
    reinterpret_cast<uint32_t*>(indices)[i] = index;
  } else {
    reinterpret_cast<uint16_t*>(indices)[i] = static_cast<uint16_t>(index);
  }
}

}  // namespace fkdb
