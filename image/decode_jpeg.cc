// SPDX-License-Identifier: Apache-2.0
#include <csetjmp>
#include <cstdio>
// jpeglib.h needs stdio's types before it.
#include <jerror.h>
#include <jpeglib.h>

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

// Everything between setjmp and its return: no object here has a destructor that a jump could skip.
bool Decode(jpeg_decompress_struct* info, ErrorState* state, std::span<const std::byte> file, Image* image,
            std::vector<uint8_t>* row, Error* error) {
  if (setjmp(state->jump)) {
    error->code = ErrorCode::kCorruption;
    return false;
  }
  jpeg_create_decompress(info);
  jpeg_mem_src(info, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(info, TRUE);
  const bool cmyk = info->jpeg_color_space == JCS_CMYK || info->jpeg_color_space == JCS_YCCK;
  info->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  if (auto made = MakeRgbImage(info->image_width, info->image_height); made) {
    *image = std::move(*made);
  } else {
    *error = made.error();
    return false;
  }
  if (cmyk) row->resize(size_t{info->image_width} * 4);
  jpeg_start_decompress(info);
  while (info->output_scanline < info->output_height) {
    uint8_t* target = image->row(info->output_scanline);
    JSAMPROW rows[1] = {cmyk ? row->data() : target};
    jpeg_read_scanlines(info, rows, 1);
    if (cmyk) RowFromCmyk(row->data(), image->width, target);
  }
  jpeg_finish_decompress(info);
  return true;
}

}  // namespace

Result<Image> DecodeJpeg(std::span<const std::byte> file) {
  jpeg_decompress_struct info = {};
  ErrorState state;
  info.err = jpeg_std_error(&state.base);
  state.base.error_exit = OnError;
  state.base.emit_message = OnMessage;
  state.base.output_message = NoOutput;
  Image image;
  std::vector<uint8_t> row;
  Error error{ErrorCode::kCorruption, ""};
  const bool decoded = Decode(&info, &state, file, &image, &row, &error);
  jpeg_destroy_decompress(&info);
  if (!decoded) {
    if (error.message.empty()) error.message = std::string("broken JPEG: ") + state.message;
    return Fail(std::move(error));
  }
  if (state.ended_early) return Fail(ErrorCode::kCorruption, "broken JPEG: the file ends early");
  return image;
}

}  // namespace fkdb
