// SPDX-License-Identifier: Apache-2.0
// Rotation, shear and translation by nearest neighbours, filled with 0: the pixels that Pillow's
// Image.rotate and torchvision's affine on PIL images give, bit for bit.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace fkdb {

// Keeps its scratch memory: one object a thread. Pixels (height, width, channels), channels 3 or 1, in place.
class Warper {
 public:
  Warper(uint32_t height, uint32_t width, uint32_t channels) : height_(height), width_(width), channels_(channels) {}

  // Counter-clockwise about the centre. Multiples of a half turn, and of a quarter turn where height equals width, move whole
  // pixels.
  void Rotate(float degrees, uint8_t* pixels);
  // out(y, x) is in(y, x + y tan) and in(y + x tan, x), about the upper left corner; |degrees| < 90.
  void ShearX(float degrees, uint8_t* pixels);
  void ShearY(float degrees, uint8_t* pixels);
  // To the right and down by `x` and `y` pixels, of which the whole ones count.
  void Translate(float x, float y, uint8_t* pixels);

 private:
  // out(y, x) is in at row a[3] x + a[4] y + a[5], column a[0] x + a[1] y + a[2], taken at the pixels' centres.
  void Affine(const std::array<double, 6>& a, uint8_t* pixels);
  void Move(int64_t right, int64_t down, uint8_t* pixels);
  void Turn(int quarters, uint8_t* pixels);  // counter-clockwise; 1 and 3: height equals width
  const uint8_t* Copy(const uint8_t* pixels);

  uint32_t height_, width_, channels_;
  std::vector<uint8_t> copy_;  // of the pixels, and a byte behind to read
};

}  // namespace fkdb
