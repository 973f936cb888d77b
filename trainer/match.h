// SPDX-License-Identifier: Apache-2.0
// Do a label set and a data set belong together? Asked before training starts.
#pragma once

#include "format/result.h"
#include "image/data_set.h"
#include "reader/reader.h"

namespace fkdb {

// Same keys in the same order, same class names in the same order, same channels; so an ordinal
// names the same image in both. Errors: Mismatch, naming the first difference; Unsupported (pixels
// made by a convention this version cannot repeat).
Result<void> CheckMatch(const Reader& labels, const DataSet& images);

}  // namespace fkdb
