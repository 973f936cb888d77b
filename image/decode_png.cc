// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <spng.h>

#include <memory>

#include "image/decode.h"

namespace fkdb {

Result<void> DecodePng(std::span<const std::byte> file, const RegionOf& region, Image* image) {
  const std::unique_ptr<spng_ctx, decltype(&spng_ctx_free)> context(spng_ctx_new(0), spng_ctx_free);
  if (!context) return Fail(ErrorCode::kResourceExhausted, "out of memory");
  const auto broken = [](int code) {
    return Fail(ErrorCode::kCorruption, fmt::format("broken PNG: {}", spng_strerror(code)));
  };
  spng_ihdr header;
  int rc = spng_set_png_buffer(context.get(), file.data(), file.size());
  if (rc == 0) rc = spng_get_ihdr(context.get(), &header);
  if (rc) return broken(rc);
  FKDB_TRY(ShapeRgbImage(header.width, header.height, image));
  FKDB_TRY(region(image->width, image->height));
  rc = spng_decode_image(context.get(), image->pixels.data(), image->pixels.size(), SPNG_FMT_RGB8, 0);
  if (rc) return broken(rc);
  return {};
}

}  // namespace fkdb
