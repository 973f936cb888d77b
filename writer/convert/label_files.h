// SPDX-License-Identifier: Apache-2.0
// Which label file belongs to which image, where there is one file an image: FKD's rule. The file of image
// `train/n01440764/x.1.JPEG` is `train/n01440764/x.tar`: the name up to its first dot.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/result.h"
#include "writer/convert/label_source.h"

namespace fkdb {

// "n01440764/x.1.JPEG" -> "n01440764/x" + extension; a dot in a folder's name stays.
std::string LabelNameOf(std::string_view key, std::string_view extension);

// Of two images that would share a label file, both keys; empty strings if there are none.
struct SharedName {
  std::string first, second;
};
SharedName FindSharedName(std::span<const std::string> keys, std::string_view extension);

// The label files of a data set's images below `root`.
class LabelFiles {
 public:
  // images: where the data set lies; labels may be filed below the last folders of its path (FKD's generator uses
  // three in all, its training code two). extensions: of label files, the first that fits. Finds out which images
  // have no file and which files no image. Errors: NotFound (no such folder; no label file of any image: says
  // where they were looked for), IoError.
  static Result<LabelFiles> Find(const std::filesystem::path& root, const std::filesystem::path& images,
                                 const std::vector<std::string>& keys, std::vector<std::string> extensions);

  // The label file of an image. Errors: NotFound (it has none), Mismatch (another image has the same).
  Result<std::filesystem::path> PathOf(uint64_t ordinal) const;
  std::filesystem::path Expected(uint64_t ordinal) const;

  const NameList& unlabelled() const { return unlabelled_; }
  const NameList& strays() const { return strays_; }

 private:
  std::string RelativeName(uint64_t ordinal, std::string_view extension) const;

  std::filesystem::path root_;
  std::string prefix_;  // of every label name, "imagenet/train/"
  const std::vector<std::string>* keys_ = nullptr;
  std::vector<std::string> extensions_;
  std::vector<uint8_t> state_;  // of each image: 0 none, 1 + extension, kShared
  NameList unlabelled_, strays_;
};

}  // namespace fkdb
