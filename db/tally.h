// SPDX-License-Identifier: Apache-2.0
// What a manifest says of the images: counted and hashed one after the other, as they lie in a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "db/digest.h"
#include "db/manifest.h"
#include "format/result.h"

namespace fkdb {

class Tally {
 public:
  // `recipe`: spec and class names are used.
  explicit Tally(const Manifest& recipe);

  // What one image adds; found on any thread.
  struct Image {
    Sha256::Hash digest;
    Record size_and_file;  // of these alone
    uint32_t crops = 0;
    bool skipped = false;
  };
  // Checks the image's record from end to end. Errors: as Add.
  Result<Image> Check(std::string_view key, std::span<const std::byte> record) const;
  void Add(const Image& image);  // in ordinal order

  // The next image in ordinal order: checks its record from end to end. Errors: Corruption,
  // InvalidArgument (the record belongs to another key); name the image.
  Result<void> Add(std::string_view key, std::span<const std::byte> record);

  uint64_t num_images() const { return num_images_; }
  // Fills the manifest's outcome: counts, skipped, contents, digest, complete. Once.
  void Finish(Manifest* manifest);

 private:
  LabelSpec spec_;
  LogicalDigest digest_;
  ContentsDigest contents_;
  uint64_t num_images_ = 0, num_crops_ = 0;
  std::vector<uint64_t> skipped_;
};

}  // namespace fkdb
