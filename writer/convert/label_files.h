// SPDX-License-Identifier: Apache-2.0
// Which label file belongs to which image, where there is one file an image: FKD's rule. A label file is filed below the
// last folders of its image's path, under the image's name up to its first dot: of `imagenet/train/n01440764/x.1.JPEG`
// FKD's generator writes `imagenet/train/n01440764/x.tar`, its training code looks for `train/n01440764/x.tar`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/result.h"
#include "writer/convert/label_source.h"

namespace fkdb {

// "n01440764/x.1.JPEG" -> "n01440764/x"; a dot in a folder's name stays.
std::string LabelNameOf(std::string_view key);

// The last `folders` folders of a path and its file's name; none if the path has fewer.
std::optional<std::string> LastParts(std::string_view path, size_t folders);

// Of two images whose label files would have one name, both keys; empty strings if there are none.
struct SharedName {
  std::string first, second;
};
using NameOfKey = std::function<std::string(std::string_view key)>;
SharedName FindSharedName(std::span<const std::string> keys, const NameOfKey& name_of);

// The label files of a data set's images below `root`.
class LabelFiles {
 public:
  // folder: where the images lie. Labels may be filed below three folders of an image's path, two, one, or those of its
  // key. Finds out which images have no file and which files no image. Borrows the data set. Errors: NotFound (no such
  // folder; no label file of any image: says where they were looked for), IoError.
  static Result<LabelFiles> Find(const std::filesystem::path& root, const std::filesystem::path& folder, const LabelledImages& images,
                                 std::string extension);

  // The label file of an image. Errors: NotFound (it has none), Mismatch (another image has the same).
  Result<std::filesystem::path> PathOf(uint64_t ordinal) const;
  std::filesystem::path Expected(uint64_t ordinal) const;

  const NameList& unlabelled() const { return unlabelled_; }
  const NameList& strays() const { return strays_; }

 private:
  enum State : uint8_t { kNone, kOne, kShared };

  // Below root_, without the extension.
  std::string NameOf(std::string_view key) const;

  std::filesystem::path root_;
  std::string folder_;             // absolute
  std::optional<size_t> folders_;  // none: those of the key
  const std::vector<std::string>* keys_ = nullptr;
  std::string extension_;
  std::vector<State> state_;       // of each image
  NameList unlabelled_, strays_;
};

}  // namespace fkdb
