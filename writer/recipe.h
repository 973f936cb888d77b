// SPDX-License-Identifier: Apache-2.0
// What every recipe has to satisfy, whoever makes the labels.
#pragma once

#include <cstdint>

#include "format/label_spec.h"
#include "format/result.h"

namespace fkdb {

// Whether records of so many crops are small enough. Errors: ResourceExhausted (over 1 GiB).
Result<void> CheckRecordSize(const LabelSpec& spec, uint64_t crops);

// A teacher that sees crops makes no label maps. Errors: Unsupported.
Result<void> CheckLabelsAreOfCrops(const LabelSpec& spec);

}  // namespace fkdb
