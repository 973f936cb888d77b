// SPDX-License-Identifier: Apache-2.0
// ImageNet ReaL: all classes that people see in each of ImageNet's 50,000 validation images. Its public file, real.json, is a list of
// lists of class indices; entry n - 1 is of ILSVRC2012_val_<n>.JPEG, and may be empty.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "format/result.h"
#include "trainer/accuracy.h"

namespace fkdb {

class RealLabels {
 public:
  // Of a model with `classes`. Errors: NotFound, IoError, Corruption (not a list of lists of whole numbers), Mismatch (a class that the
  // model does not have; names the entry).
  static Result<RealLabels> Read(const std::filesystem::path& path, uint32_t classes);

  // Of the image `key`, whose file name's last number is looked up. Errors: Mismatch (no number; beyond the list).
  Result<const std::vector<int32_t>*> Of(std::string_view key) const;

 private:
  std::filesystem::path path_;
  std::vector<std::vector<int32_t>> labels_;
};

}  // namespace fkdb
