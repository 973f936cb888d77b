// SPDX-License-Identifier: Apache-2.0
// Gaussian blur as Pillow makes it: three box blurs a direction, each of a width that need not be whole, rounded to 8 bits
// after each. Every instruction set gives the same bits.
#pragma once

#include <cstdint>
#include <vector>

namespace fkdb {

constexpr float kMaxSigma = 1000;

// Keeps its scratch memory: one object a thread.
class GaussianBlur {
 public:
  // pixels (height, width, channels) in place; 0 <= sigma <= kMaxSigma, in pixels.
  void Run(float sigma, uint32_t height, uint32_t width, uint32_t channels, uint8_t* pixels);

 private:
  std::vector<uint8_t> turned_, passed_;  // as large as the image
};

}  // namespace fkdb
