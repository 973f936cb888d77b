// SPDX-License-Identifier: Apache-2.0
// The images that labels belong to: a folder of JPEG and PNG files, tar archives of them, or an IDX file.
// Images are known by key and listed in bytewise key order; an image's place in that order is its ordinal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "format/result.h"
#include "image/decode.h"
#include "image/image.h"

namespace fkdb {

struct ImageSize {
  uint32_t width = 0;   // pixels, as stored
  uint32_t height = 0;
};

// Immutable; Load may be called from many threads.
class DataSet {
 public:
  virtual ~DataSet() = default;

  const std::string& name() const { return name_; }
  const std::string& layout() const { return layout_; }  // "folder", "webdataset" or "idx"
  uint32_t channels() const { return channels_; }        // of every image: 3, or 1 for IDX
  const std::vector<std::string>& keys() const { return keys_; }
  uint64_t size() const { return keys_.size(); }
  // In index order; empty if images have no class.
  const std::vector<std::string>& class_names() const { return class_names_; }
  int32_t class_index(uint64_t ordinal) const { return class_indices_[ordinal]; }  // -1: no class
  // Whether the image is there. Some data sets have keys without an image (trainer/labelled_images.h).
  virtual bool has(uint64_t ordinal) const { return ordinal < size(); }

  // Decodes image `ordinal` < size(). `file`, unless null, gets the bytes that its content hash is
  // taken of: the image file, or the pixels of an IDX image. Errors: NotFound, IoError, Corruption,
  // Unsupported; the message names the image.
  virtual Result<Image> Load(uint64_t ordinal, std::vector<std::byte>* file = nullptr) const = 0;

  // The size of image `ordinal`, from its header: nothing is decoded. `file`, not null, as for Load. Errors: those of Load.
  virtual Result<ImageSize> Measure(uint64_t ordinal, std::vector<std::byte>* file) const;

  // As DecodeRegion: only the part of the image that `region` names is sure to be in `image`, whose
  // memory is used again. Errors: also those of `region`.
  virtual Result<void> LoadRegion(uint64_t ordinal, const RegionOf& region, Image* image) const;

 protected:
  friend Result<std::unique_ptr<DataSet>> OpenDataSet(const std::filesystem::path&, uint64_t);
  std::string name_;
  std::string layout_;
  uint32_t channels_ = 3;
  std::vector<std::string> keys_;
  std::vector<std::string> class_names_;
  std::vector<int32_t> class_indices_;
};

// `path`: one of
//   a folder of images; a key is a path below it, and its first folder, if there is one, the class;
//   a .tar file, or a folder with .tar files in it (WebDataset's shards); a key is a path in its archive,
//   the class what `.cls` files beside the images say (numbers; the largest one tells how many classes
//   there are), and without any the first folder;
//   an IDX image file such as `train-images-idx3-ubyte`, plain or gzipped, with its labels beside it.
// Only the first `limit` images are taken (0: all). Errors: NotFound, IoError, Corruption (IDX, tar; a key
// that is in two archives), Unsupported (a compressed archive), InvalidArgument (no image; images and
// archives in one folder).
Result<std::unique_ptr<DataSet>> OpenDataSet(const std::filesystem::path& path, uint64_t limit = 0);

Result<std::unique_ptr<DataSet>> OpenFolder(const std::filesystem::path& path);
Result<std::unique_ptr<DataSet>> OpenIdx(const std::filesystem::path& path);
// `named` gives the data set its name.
Result<std::unique_ptr<DataSet>> OpenTars(const std::filesystem::path& named, std::vector<std::filesystem::path> shards);
// The .tar files in a folder, in bytewise order.
std::vector<std::filesystem::path> TarsIn(const std::filesystem::path& folder);

}  // namespace fkdb
