// SPDX-License-Identifier: Apache-2.0
// From what a teacher says of one crop, or of a label map's cell, to what its image's record keeps.
#pragma once

#include <cstdint>
#include <span>

#include "format/label_spec.h"
#include "format/record.h"
#include "writer/teacher.h"

namespace fkdb {

// Whether it is one, within float16's rounding: no negative number, sum 1 within 1e-3.
bool IsDistribution(std::span<const float> output);

// output (C) -> crop `crop` of record's indices and values, which are sized. False if the output is not
// what its kind says: NaN, infinity, no distribution. Labels of kind `logits` and label maps want logits.
bool StoreOutput(const LabelSpec& spec, OutputKind kind, std::span<const float> output, uint32_t crop, Record* record);

}  // namespace fkdb
