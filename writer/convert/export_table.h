// SPDX-License-Identifier: Apache-2.0
// Writes a label set as a table (table.h), its rows in the order of images and crops.
#pragma once

#include "db/label_set.h"
#include "format/result.h"
#include "writer/convert/export_fkd.h"
#include "writer/convert/table.h"

namespace fkdb {

// writer: null for a dry run. Of the options images, resume and overwrite are not used. Errors: Unsupported (label maps; crops with further augmentation, which
// has no column), Corruption, those of the writer. An interrupted export leaves nothing.
Result<ExportSummary> ExportTable(const LabelSet& set, TableWriter* writer, const ExportOptions& options);

}  // namespace fkdb
