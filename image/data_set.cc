// SPDX-License-Identifier: Apache-2.0
#include "image/data_set.h"

#include <fmt/format.h>

namespace fkdb {

Result<ImageSize> DataSet::Measure(uint64_t ordinal, std::vector<std::byte>* file) const {
  FKDB_ASSIGN(const Image image, Load(ordinal, file));
  return ImageSize{image.width, image.height};
}

Result<void> DataSet::LoadRegion(uint64_t ordinal, const RegionOf& region, Image* image) const {
  FKDB_ASSIGN(*image, Load(ordinal));
  FKDB_TRY(region(image->width, image->height));
  return {};
}

Result<std::unique_ptr<DataSet>> OpenDataSet(const std::filesystem::path& path, uint64_t limit) {
  std::error_code ec;
  const auto status = std::filesystem::status(path, ec);
  if (!std::filesystem::exists(status)) {
    return Fail(ErrorCode::kNotFound, fmt::format("{}: no such image folder, tar or IDX file", path.string()));
  }
  std::vector<std::filesystem::path> tars;
  if (std::filesystem::is_directory(status)) {
    tars = TarsIn(path);
    if (!tars.empty() && OpenFolder(path)) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("{}: both images and archives of them ('{}') are in it: keep them apart", path.string(),
                              tars[0].filename().string()));
    }
  } else if (path.extension() == ".tar" || path.extension() == ".tgz" || path.stem().extension() == ".tar") {
    tars = {path};
  }
  FKDB_ASSIGN(std::unique_ptr<DataSet> set, !tars.empty()                           ? OpenTars(path, tars)
                                            : std::filesystem::is_directory(status) ? OpenFolder(path)
                                                                                    : OpenIdx(path));
  if (limit > 0 && limit < set->keys_.size()) {
    set->keys_.resize(limit);
    set->class_indices_.resize(limit);
  }
  return set;
}

}  // namespace fkdb
