// SPDX-License-Identifier: Apache-2.0
// How a label file is made from others, image after image: for rewrite.cc and average.cc alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "db/manifest.h"
#include "db/rewrite.h"
#include "format/result.h"

namespace fkdb {

// An image of the output: where it comes from.
struct SourceImage {
  std::string key;
  uint32_t set;      // of the inputs
  uint64_t ordinal;  // in it
};

// What is known of the output before its first image is written: the recipe, of these images.
Manifest OutputRecipe(Manifest recipe, const std::vector<SourceImage>& images, const RewriteOptions& options);

// Appends image after image, each as `record` gives it, from where an earlier run stopped. Errors: Incomplete (options.stop),
// those of `record` and LabelFileWriter.
Result<Manifest> WriteImages(const std::filesystem::path& out, Manifest recipe, const std::vector<SourceImage>& images,
                             const RewriteOptions& options,
                             const std::function<Result<std::vector<std::byte>>(const SourceImage&)>& record);

}  // namespace fkdb
