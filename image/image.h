// SPDX-License-Identifier: Apache-2.0
// A decoded image in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fkdb {

// Rows of interleaved 8-bit samples: pixels (height, width, channels), RGB or grey.
struct Image {
  uint32_t height = 0;
  uint32_t width = 0;
  uint32_t channels = 0;  // 3 or 1
  std::vector<uint8_t> pixels;

  const uint8_t* row(uint32_t y) const { return pixels.data() + size_t{y} * width * channels; }
  uint8_t* row(uint32_t y) { return pixels.data() + size_t{y} * width * channels; }
};

}  // namespace fkdb
