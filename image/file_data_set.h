// SPDX-License-Identifier: Apache-2.0
// A data set whose images are JPEG and PNG files, wherever their bytes lie. For image's own sources only.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "image/data_set.h"

namespace fkdb {

// Ends in .jpg, .jpeg or .png, in any case.
bool IsImageName(std::string_view name);

class FileDataSet : public DataSet {
 public:
  Result<Image> Load(uint64_t ordinal, std::vector<std::byte>* file) const override;
  Result<ImageSize> Measure(uint64_t ordinal, std::vector<std::byte>* file) const override;
  Result<void> LoadRegion(uint64_t ordinal, const RegionOf& region, Image* image) const override;

 protected:
  // The bytes of image `ordinal`; an error does not name it.
  virtual Result<void> ReadFile(uint64_t ordinal, std::vector<std::byte>* bytes) const = 0;
  // How messages call it.
  virtual std::string PathOf(uint64_t ordinal) const = 0;

  // The first folder of a key is its class; classes are numbered in bytewise order.
  void FindClasses();

 private:
  tl::unexpected<Error> In(uint64_t ordinal, const Error& error) const;
};

}  // namespace fkdb
