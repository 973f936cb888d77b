// SPDX-License-Identifier: Apache-2.0
// A look at a labelling before it begins: the teachers label a few crops, of which nothing is kept.
#pragma once

#include <cstdint>

#include "format/result.h"
#include "image/data_set.h"
#include "writer/label_job.h"

namespace fkdb {

struct ProbeResult {
  uint64_t crops = 0;      // that were labelled, and in how many
  double seconds = 0;
  double record_bytes = 0; // of their records

  double crops_per_second() const { return static_cast<double>(crops) / seconds; }
  double bytes_per_crop() const { return record_bytes / static_cast<double>(crops); }
};

// By options.threads threads at a time, at least one teacher batch each, and more for about `seconds`. Images that cannot be
// read are left to the job. Errors: those of PlanRecipe and the teachers; Model (outputs that are not what they are said to
// be), Incomplete (options.stop), InvalidArgument (no image can be read).
Result<ProbeResult> ProbeTeachers(const DataSet& data, const Ensemble& teachers, const LabelJobOptions& options, double seconds);

}  // namespace fkdb
