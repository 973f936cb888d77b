// SPDX-License-Identifier: Apache-2.0
// Formats that have a file of torch.save's for each image (label_files.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "format/result.h"
#include "image/data_set.h"
#include "writer/convert/label_source.h"
#include "writer/convert/pickle.h"

namespace fkdb {

// images lie in `folder`. Borrows the data set. Errors: those of LabelFiles::Find.
Result<std::unique_ptr<LabelSource>> OpenLabelFiles(const std::filesystem::path& root, const std::filesystem::path& folder, const LabelledImages& images,
                                                    const std::string& extension, std::function<Result<ImageLabels>(const PickleValue&)> parse);

// The classes in an array of any type of number. Errors: Corruption (a number that is none), Unsupported (a float16 of 2048
// or a bfloat16 of 256 and more, where neighbours are one number).
Result<std::vector<uint32_t>> ClassesOf(const Array& array);

constexpr uint32_t kHalfClasses = 2049;  // 0 to 2048: the whole numbers that float16 tells apart

}  // namespace fkdb
