// SPDX-License-Identifier: Apache-2.0
#include "image/file_data_set.h"

#include <fmt/format.h>

#include <algorithm>

#include "image/decode.h"

namespace fkdb {

bool IsImageName(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return false;
  std::string extension(name.substr(dot + 1));
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); });
  return extension == "jpg" || extension == "jpeg" || extension == "png";
}

tl::unexpected<Error> FileDataSet::In(uint64_t ordinal, const Error& error) const {
  return Fail(error.code, fmt::format("image '{}': {}", PathOf(ordinal), error.message));
}

Result<Image> FileDataSet::Load(uint64_t ordinal, std::vector<std::byte>* file) const {
  std::vector<std::byte> own;
  std::vector<std::byte>& bytes = file ? *file : own;
  if (auto read = ReadFile(ordinal, &bytes); !read) return In(ordinal, read.error());
  auto image = DecodeImage(bytes);
  if (!image) return In(ordinal, image.error());
  return image;
}

Result<ImageSize> FileDataSet::Measure(uint64_t ordinal, std::vector<std::byte>* file) const {
  if (auto read = ReadFile(ordinal, file); !read) return In(ordinal, read.error());
  ImageSize size;
  Image unused;
  const auto enough = Fail(ErrorCode::kIncomplete, "the size is known");
  const RegionOf stop = [&](uint32_t width, uint32_t height) -> Result<PixelBox> {
    size = {width, height};
    return enough;
  };
  if (const auto decoded = DecodeRegion(*file, stop, &unused); !decoded && size.width == 0) return In(ordinal, decoded.error());
  return size;
}

Result<void> FileDataSet::LoadRegion(uint64_t ordinal, const RegionOf& region, Image* image) const {
  thread_local std::vector<std::byte> bytes;
  if (auto read = ReadFile(ordinal, &bytes); !read) return In(ordinal, read.error());
  Result<PixelBox> box;
  auto decoded = DecodeRegion(bytes, [&](uint32_t width, uint32_t height) { return box = region(width, height); }, image);
  if (!box) return Fail(box.error());  // the caller's own words
  if (!decoded) return In(ordinal, decoded.error());
  return {};
}

void FileDataSet::FindClasses() {
  for (const std::string& key : keys_) {
    if (const size_t slash = key.find('/'); slash != std::string::npos) class_names_.push_back(key.substr(0, slash));
  }
  std::sort(class_names_.begin(), class_names_.end());
  class_names_.erase(std::unique(class_names_.begin(), class_names_.end()), class_names_.end());
  for (const std::string& key : keys_) {
    const size_t slash = key.find('/');
    const auto found = std::lower_bound(class_names_.begin(), class_names_.end(), key.substr(0, slash));
    class_indices_.push_back(slash == std::string::npos ? -1 : static_cast<int32_t>(found - class_names_.begin()));
  }
}

}  // namespace fkdb
