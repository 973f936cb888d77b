// SPDX-License-Identifier: Apache-2.0
#include <csetjmp>
#include <cstdio>
// jpeglib.h needs stdio's types before it.
#include <jerror.h>
#include <jpeglib.h>

#include <algorithm>
#include <memory>
#include <string>

#include "image/decode.h"

namespace fkdb {
namespace {

struct ErrorState {
  jpeg_error_mgr base;  // first: libjpeg hands this address back
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = "";
  bool ended_early = false;
};

ErrorState* StateOf(j_common_ptr info) { return reinterpret_cast<ErrorState*>(info->err); }

[[noreturn]] void OnError(j_common_ptr info) {
  info->err->format_message(info, StateOf(info)->message);
  std::longjmp(StateOf(info)->jump, 1);
}

// Warnings are what Pillow decodes through, but for a file that ends early.
void OnMessage(j_common_ptr info, int level) {
  if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) StateOf(info)->ended_early = true;
}

void NoOutput(j_common_ptr) {}

uint8_t MulDiv255(unsigned a, unsigned b) {
  const unsigned t = a * b + 128;
  return static_cast<uint8_t>(((t >> 8) + t) >> 8);
}

// One row of inverted CMYK (255 = no ink) to RGB.
void RowFromCmyk(const uint8_t* cmyk, uint32_t width, uint8_t* rgb) {
  for (uint32_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    const unsigned light = cmyk[3];
    for (int c = 0; c < 3; ++c) rgb[c] = static_cast<uint8_t>(light - MulDiv255(255u - cmyk[c], light));
  }
}

// Each of the two below: everything between setjmp and its return. No object in them has a destructor
// that a jump could skip.
bool ReadHeader(jpeg_decompress_struct* info, ErrorState* state, std::span<const std::byte> file) {
  if (setjmp(state->jump)) return false;
  jpeg_create_decompress(info);
  jpeg_mem_src(info, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(info, TRUE);
  return true;
}

bool IsCmyk(const jpeg_decompress_struct& info) {
  return info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
}

// cmyk_row: room for a row of a CMYK image.
bool ReadPixels(jpeg_decompress_struct* info, ErrorState* state, const PixelBox& region, Image* image, uint8_t* cmyk_row) {
  if (setjmp(state->jump)) return false;
  const bool cmyk = IsCmyk(*info);
  info->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(info);
  // A column of margin on either side: chroma is interpolated from its neighbours.
  JDIMENSION left = region.left > 0 ? region.left - 1 : 0;
  JDIMENSION width = std::min(region.left + region.width + 1, image->width) - left;
  if (!cmyk && width < image->width) {
    jpeg_crop_scanline(info, &left, &width);  // moves `left` down to where a block begins
  } else {
    left = 0;
  }
  if (region.top > 0) jpeg_skip_scanlines(info, region.top);
  while (info->output_scanline < region.top + region.height) {
    uint8_t* target = image->row(info->output_scanline) + size_t{left} * 3;
    JSAMPROW rows[1] = {cmyk ? cmyk_row : target};
    jpeg_read_scanlines(info, rows, 1);
    if (cmyk) RowFromCmyk(cmyk_row, image->width, target);
  }
  if (info->output_scanline == info->output_height) {
    jpeg_finish_decompress(info);
  } else {
    jpeg_abort_decompress(info);
  }
  return true;
}

}  // namespace

Result<void> DecodeJpeg(std::span<const std::byte> file, const RegionOf& region_of, Image* image) {
  jpeg_decompress_struct info = {};
  const std::unique_ptr<jpeg_decompress_struct, decltype(&jpeg_destroy_decompress)> destroyer(&info, jpeg_destroy_decompress);
  ErrorState state;
  info.err = jpeg_std_error(&state.base);
  state.base.error_exit = OnError;
  state.base.emit_message = OnMessage;
  state.base.output_message = NoOutput;
  const auto broken = [&] { return Fail(ErrorCode::kCorruption, std::string("broken JPEG: ") + state.message); };
  if (!ReadHeader(&info, &state, file)) return broken();
  FKDB_TRY(ShapeRgbImage(info.image_width, info.image_height, image));
  FKDB_ASSIGN(const PixelBox region, region_of(image->width, image->height));
  std::vector<uint8_t> cmyk_row(IsCmyk(info) ? size_t{info.image_width} * 4 : 0);
  if (!ReadPixels(&info, &state, region, image, cmyk_row.data())) return broken();
  if (state.ended_early) return Fail(ErrorCode::kCorruption, "broken JPEG: the file ends early");
  return {};
}

}  // namespace fkdb
