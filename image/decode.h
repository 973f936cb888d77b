// SPDX-License-Identifier: Apache-2.0
// JPEG and PNG files to RGB, as Pillow's open().convert("RGB") gives it: no EXIF rotation, alpha
// dropped, CMYK taken as Adobe's inverted one. Samples of 16 bits become value >> 8.
#pragma once

#include <cstddef>
#include <span>

#include "format/result.h"
#include "image/image.h"

namespace fkdb {

constexpr uint64_t kMaxImagePixels = 1ull << 28;

// The file's bytes, JPEG or PNG told apart by their first bytes. Errors: Corruption (broken or
// truncated; what the decoder said), Unsupported (another format), ResourceExhausted (over
// kMaxImagePixels).
Result<Image> DecodeImage(std::span<const std::byte> file);

Result<Image> DecodeJpeg(std::span<const std::byte> file);
Result<Image> DecodePng(std::span<const std::byte> file);

// An RGB image of this size, or why there can be none.
Result<Image> MakeRgbImage(uint64_t width, uint64_t height);

}  // namespace fkdb
