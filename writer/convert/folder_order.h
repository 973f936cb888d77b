// SPDX-License-Identifier: Apache-2.0
// The order in which torchvision's ImageFolder numbers images, which other systems' labels count by: class folder,
// then folder, then file name. It is not the bytewise order of keys, where "a-b/x" comes before "a/x".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace fkdb {

class FolderOrder {
 public:
  // keys: of a DataSet.
  explicit FolderOrder(std::span<const std::string> keys);

  uint64_t size() const { return ordinals_.size(); }
  uint64_t ordinal(uint64_t number) const { return ordinals_[number]; }  // of ImageFolder's image `number`
  uint64_t number(uint64_t ordinal) const { return numbers_[ordinal]; }

 private:
  std::vector<uint32_t> ordinals_, numbers_;
};

}  // namespace fkdb
