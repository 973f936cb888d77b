// SPDX-License-Identifier: Apache-2.0
// Do a label set and a data set belong together? Asked before training starts.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "format/result.h"
#include "image/data_set.h"
#include "reader/reader.h"

namespace fkdb {

// Same keys in the same order, same class names in the same order, same channels; so an ordinal
// names the same image in both. Errors: Mismatch, naming the first difference; Unsupported (pixels
// made by a convention this version cannot repeat).
Result<void> CheckMatch(const Reader& labels, const DataSet& images);
// The same but for the keys.
Result<void> CheckForm(const Reader& labels, const DataSet& images);

// Errors also: Unsupported (label maps).
// Its parts, for images that are no DataSet: `name` is how messages call them.
Result<void> CheckPixels(const Reader& labels);
Result<void> CheckKeys(const Reader& labels, std::string_view name, std::span<const std::string> sorted_keys);
// A label set without class names matches any.
Result<void> CheckClasses(const Reader& labels, std::string_view name, std::span<const std::string> class_names);

}  // namespace fkdb
