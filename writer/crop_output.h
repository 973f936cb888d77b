// SPDX-License-Identifier: Apache-2.0
// From what a teacher says of one crop to what its image's record keeps.
#pragma once

#include <cstdint>
#include <span>

#include "format/label_spec.h"
#include "format/record.h"

namespace fkdb {

enum class OutputKind {
  kLogits,         // z; the spec's temperature is applied
  kProbabilities,  // p, a distribution: no negative number, sum 1 within 1e-3
};

// output (C) -> crop `crop` of record's indices and values, which are sized. False if the output is not
// what its kind says: NaN, infinity, no distribution. Labels of kind `logits` want logits.
bool StoreOutput(const LabelSpec& spec, OutputKind kind, std::span<const float> output, uint32_t crop, Record* record);

}  // namespace fkdb
