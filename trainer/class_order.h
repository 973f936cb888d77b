// SPDX-License-Identifier: Apache-2.0
// Which of a model's classes are a validation set's? A folder's classes are numbered in the text order of their names;
// ImageNetV2's folders are named by the number of the class, and "10" is not the third.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/result.h"
#include "image/data_set.h"

namespace fkdb {

enum class ClassOrder {
  kAuto,    // see ModelClasses
  kText,    // the data set's own
  kNumber,  // names are class numbers
};

Result<ClassOrder> ParseClassOrder(std::string_view name);  // "auto", "text", "number"

// The model's class for each class of `data`. kAuto: if the training's class names are known and have all of the data set's, by name;
// else by number if the names are the numbers 0 to classes - 1, each once; else in text order. Errors: Mismatch (another count of classes, a
// name that is no class number).
Result<std::vector<int32_t>> ModelClasses(const DataSet& data, uint32_t classes, std::span<const std::string> trained, ClassOrder order);

}  // namespace fkdb
