// SPDX-License-Identifier: Apache-2.0
// What every recipe has to satisfy, whoever makes the labels.
#pragma once

#include <cstdint>

#include "db/manifest.h"
#include "format/label_spec.h"
#include "format/result.h"
#include "image/crop_inputs.h"
#include "image/data_set.h"

namespace fkdb {

// Whether records of so many crops are small enough. Errors: ResourceExhausted (over 1 GiB).
Result<void> CheckRecordSize(const LabelSpec& spec, uint64_t crops);

// What a manifest says of a data set; without its classes where they are not the labels'.
DataSetInfo Describe(const DataSet& data, bool use_classes);

// How a crop becomes the input of the label set's students, and of a teacher that says nothing else. Errors: InvalidArgument (a
// name in it).
Result<InputSpec> InputOf(const AugmentationInfo& augmentation);

// A teacher that sees crops makes no label maps. Errors: Unsupported.
Result<void> CheckLabelsAreOfCrops(const LabelSpec& spec);

}  // namespace fkdb
