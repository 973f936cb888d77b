// SPDX-License-Identifier: Apache-2.0
#include "image/decode.h"

#include <fmt/format.h>

#include <cstring>

namespace fkdb {
namespace {

bool StartsWith(std::span<const std::byte> file, std::string_view magic) {
  return file.size() >= magic.size() && std::memcmp(file.data(), magic.data(), magic.size()) == 0;
}

}  // namespace

Result<Image> DecodeImage(std::span<const std::byte> file) {
  Image image;
  const auto whole = [](uint32_t width, uint32_t height) -> Result<PixelBox> { return PixelBox{0, 0, height, width}; };
  FKDB_TRY(DecodeRegion(file, whole, &image));
  return image;
}

Result<void> DecodeRegion(std::span<const std::byte> file, const RegionOf& region, Image* image) {
  if (StartsWith(file, "\xff\xd8\xff")) return DecodeJpeg(file, region, image);
  if (StartsWith(file, "\x89PNG\r\n\x1a\n")) return DecodePng(file, region, image);
  if (file.empty()) return Fail(ErrorCode::kCorruption, "the file is empty");
  return Fail(ErrorCode::kUnsupported, "neither a JPEG nor a PNG file");
}

Result<void> ShapeRgbImage(uint64_t width, uint64_t height, Image* image) {
  if (width == 0 || height == 0) return Fail(ErrorCode::kCorruption, "an image without pixels");
  if (height > kMaxImagePixels / width) {
    return Fail(ErrorCode::kResourceExhausted,
                fmt::format("{} x {} pixels: at most {} in all", width, height, kMaxImagePixels));
  }
  image->width = static_cast<uint32_t>(width);
  image->height = static_cast<uint32_t>(height);
  image->channels = 3;
  image->pixels.resize(width * height * 3);
  return {};
}

}  // namespace fkdb
