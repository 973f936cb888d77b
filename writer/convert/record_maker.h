// SPDX-License-Identifier: Apache-2.0
// From what a source says of one image to the image's record: checked, sorted, its boxes made pixels where they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "db/manifest.h"
#include "format/record.h"
#include "format/result.h"
#include "image/data_set.h"
#include "writer/convert/convert_job.h"
#include "writer/convert/label_source.h"

namespace fkdb {

// One a thread. Borrows all that it is given.
class RecordMaker {
 public:
  RecordMaker(const LabelSource& source, const DataSet& data, const Manifest& recipe, const ConvertOptions& options)
      : source_(source), data_(data), recipe_(recipe), options_(options) {}

  // Image `ordinal`'s record, encoded; a bad image's says why it was skipped. Errors: without skip_bad (and where it is
  // no dry run), those of a bad image.
  Result<std::vector<std::byte>> Make(uint64_t ordinal);

  ConvertSummary tally;  // of what was made so far

 private:
  Result<void> Fill(uint64_t ordinal, Record* record);
  // Largest first; equal ones as they were.
  void Sort(size_t k, ImageLabels* labels);
  Result<void> FillBoxes(const ImageSize& size, const ImageLabels& labels, uint32_t crops, Record* record);

  const LabelSource& source_;
  const DataSet& data_;
  const Manifest& recipe_;
  const ConvertOptions& options_;
  std::vector<std::byte> file_;
};

}  // namespace fkdb
