// SPDX-License-Identifier: Apache-2.0
// Does a finished label set say what its teachers say now? They label a sample of its crops again.
#pragma once

#include <cstdint>
#include <filesystem>

#include "format/result.h"
#include "image/data_set.h"
#include "writer/label_job.h"

namespace fkdb {

struct RecheckResult {
  uint64_t images = 0, crops = 0;  // of the sample
  uint64_t identical = 0;          // crops whose stored label came out bit for bit
  uint64_t same_top1 = 0;
  double mean_distance = 0;        // half the sum of |p - p'| over the classes of a crop, 0 to 1; mean over the crops
  double worst_distance = 0;       // of a crop
};

// The options that a recheck of `path` runs with: its recipe. Errors: those of LabelSet.
Result<LabelJobOptions> RecheckOptions(const std::filesystem::path& path);

// Labels about `share` (above 0, at most 1) of the images again, in the teacher batches that they were labelled in, spread evenly
// over the label set. Logits are compared after a softmax. Of options threads, progress and stop may be changed. Errors: Mismatch
// (other images), InvalidArgument (another recipe, other teachers: names the first difference), Incomplete (stop), those of
// GroupLabeller. Of labels that came from elsewhere the teachers are not known: any may be tried.
Result<RecheckResult> RecheckLabels(const DataSet& data, const Ensemble& teachers, const std::filesystem::path& path,
                                    const LabelJobOptions& options, double share);

}  // namespace fkdb
