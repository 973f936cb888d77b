// SPDX-License-Identifier: Apache-2.0
// A crop's label as batches hold it and a bus carries it: indices of 2 or 4 bytes, palettes resolved,
// and values in their stored encoding, `packed` ones as the codes they are. With K = 5 and `packed`
// that is 14 bytes. The labels of N crops are two arrays:
//
//   indices  (N, num_indices)        u16, or u32 where spec.wide_indices()
//   values   (N, CompactValueBytes)  f32, f16 or bf16; packed: the bits of format/packed.h, each crop's
//                                    beginning at a byte, and kBitPadding bytes behind the last crop's
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/label_spec.h"

namespace fkdb {

// Of one crop.
size_t CompactIndexBytes(const LabelSpec& spec);
size_t CompactValueBytes(const LabelSpec& spec);

// out (crops, num_indices).
void ExpandIndices(const LabelSpec& spec, const std::byte* indices, size_t crops, uint32_t* out);
// out (crops, num_values): the bits that RecordView::CopyValues gives.
void ExpandValues(const LabelSpec& spec, const std::byte* values, size_t crops, float* out);

// Index `i` of an array of compact indices.
void PutCompactIndex(const LabelSpec& spec, std::byte* indices, size_t i, uint32_t index);

}  // namespace fkdb
