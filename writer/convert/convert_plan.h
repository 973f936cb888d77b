// SPDX-License-Identifier: Apache-2.0
// What a conversion will make of a source: decided from a few of its images, before anything is written.
#pragma once

#include <vector>

#include "db/manifest.h"
#include "format/result.h"
#include "image/data_set.h"
#include "writer/convert/convert_job.h"
#include "writer/convert/label_source.h"

namespace fkdb {

// What labels of this form can be.
std::vector<LabelKind> KindsOf(LabelForm form);

// The recipe: kind, K, encodings, boxes and crops, from the options and from up to 32 of the images. Errors:
// InvalidArgument (an option that makes no sense, or that the labels need), those of the source where no image has labels.
Result<Manifest> PlanConversion(LabelSource& source, const DataSet& data, const ConvertOptions& options);

}  // namespace fkdb
