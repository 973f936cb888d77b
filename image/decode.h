// SPDX-License-Identifier: Apache-2.0
// JPEG and PNG files to RGB, as Pillow's open().convert("RGB") gives it: no EXIF rotation, alpha
// dropped, CMYK taken as Adobe's inverted one. Samples of 16 bits become value >> 8.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "format/box.h"
#include "format/result.h"
#include "image/image.h"

namespace fkdb {

constexpr uint64_t kMaxImagePixels = 1ull << 28;

// The file's bytes, JPEG or PNG told apart by their first bytes. Errors: Corruption (broken or
// truncated; what the decoder said), Unsupported (another format), ResourceExhausted (over
// kMaxImagePixels).
Result<Image> DecodeImage(std::span<const std::byte> file);

// Which part of an image of this size is needed: inside it, at least 1 x 1. An error ends the decoding.
using RegionOf = std::function<Result<PixelBox>(uint32_t width, uint32_t height)>;

// The same into `image`, whose memory is used again. Only the pixels of the region are sure to be
// there: a JPEG is decoded no further than that, and whatever is broken behind it is not seen.
// Errors: also those of `region`.
Result<void> DecodeRegion(std::span<const std::byte> file, const RegionOf& region, Image* image);

Result<void> DecodeJpeg(std::span<const std::byte> file, const RegionOf& region, Image* image);
Result<void> DecodePng(std::span<const std::byte> file, const RegionOf& region, Image* image);

// Gives `image` this size and three channels, or says why there can be no such image.
Result<void> ShapeRgbImage(uint64_t width, uint64_t height, Image* image);

}  // namespace fkdb
