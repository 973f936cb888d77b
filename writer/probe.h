// SPDX-License-Identifier: Apache-2.0
// A look at a labelling before it begins: the teachers label a few crops, of which nothing is kept.
#pragma once

#include <cstdint>
#include <string>

#include "format/result.h"
#include "image/data_set.h"
#include "writer/label_job.h"

namespace fkdb {

struct ProbeResult {
  uint64_t crops = 0;      // that were labelled, and in how many; 0: no image could be read
  double seconds = 0;
  double record_bytes = 0; // of their records
  uint32_t crops_per_image = 0;  // that the job is to label; of a label map its cells
  std::string unread;      // why the first image that was not read was not

  double crops_per_second() const { return static_cast<double>(crops) / seconds; }
  double bytes_per_crop() const { return record_bytes / static_cast<double>(crops); }
};

// By options.threads threads at a time, a full teacher batch each, and more for about `seconds`. Images that cannot be read are
// left to the job. Errors: those of PlanRecipe, as the job would have them, and of the teachers; Model (outputs that are not what
// they are said to be), Incomplete (options.stop).
Result<ProbeResult> ProbeTeachers(const DataSet& data, const Ensemble& teachers, const LabelJobOptions& options, double seconds);

}  // namespace fkdb
