// SPDX-License-Identifier: Apache-2.0
// Zip archives in memory: the files that torch.save and numpy.savez write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/result.h"

struct zip;

namespace fkdb {

class ZipFile {
 public:
  // Borrows `bytes`. Errors: Corruption (no zip archive, cut off).
  static Result<ZipFile> Open(std::span<const std::byte> bytes);

  const std::vector<std::string>& names() const { return names_; }
  // A member's bytes, its checksum checked. Errors: NotFound, Corruption, ResourceExhausted (more than `limit` bytes;
  // before any are read).
  Result<std::vector<std::byte>> Read(std::string_view name, uint64_t limit) const;

 private:
  struct Close {
    void operator()(::zip* archive) const;
  };
  std::unique_ptr<::zip, Close> archive_;
  std::vector<std::string> names_;
  std::map<std::string, uint64_t, std::less<>> places_;
};

struct ZipMember {
  std::string name;
  std::span<const std::byte> bytes;
};
// An archive of these, of which there is at least one, stored as they are. Errors: ResourceExhausted.
Result<std::vector<std::byte>> MakeZip(std::span<const ZipMember> members);

}  // namespace fkdb
