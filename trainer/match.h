// SPDX-License-Identifier: Apache-2.0
// Do a label set and a data set belong together? Asked before training starts.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

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

// Its parts, for images that are no DataSet: `name` is how messages call them.
Result<void> CheckPixels(const Reader& labels);
Result<void> CheckKeys(const Reader& labels, std::string_view name, std::span<const std::string> sorted_keys);
// Whether its labels are of crops. Errors: Unsupported (label maps).
Result<void> CheckCrops(const Reader& labels);
// Whether they are label maps. Errors: InvalidArgument.
Result<void> CheckMaps(const Reader& labels);
// Whether image `ordinal` is of the size that it had when it was labelled. Errors: Mismatch.
Result<void> CheckSize(const Reader& labels, uint64_t ordinal, ImageSize then, ImageSize now);
// The images that were not skipped and that `images` has, ascending; null: it has all.
std::vector<uint64_t> LabelledOrdinals(const Reader& labels, const DataSet* images);
// A label set without class names matches any.
Result<void> CheckClasses(const Reader& labels, std::string_view name, std::span<const std::string> class_names);

}  // namespace fkdb
