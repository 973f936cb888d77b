// SPDX-License-Identifier: Apache-2.0
// Compact labels (format/compact.h), as the reader's batches hold them, to the arrays that the kernels
// take. On the CPU in the processor's vectors.
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/label_spec.h"

namespace fkdb {

// indices (rows, CompactIndexBytes), values (rows, CompactValueBytes) and their padding
// -> out_indices (rows, num_indices), out_values (rows, num_values): the bits of ExpandIndices and
// ExpandValues.
void UnpackLabels(const LabelSpec& spec, const std::byte* indices, const std::byte* values, size_t rows,
                  uint32_t* out_indices, float* out_values);

}  // namespace fkdb
