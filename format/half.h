// SPDX-License-Identifier: Apache-2.0
// IEEE 754 binary16 as its 16 bits. Conversions are exact or round to nearest even, the same on
// every machine.
#pragma once

#include <bit>
#include <cstdint>

namespace fkdb {

// Nearest binary16 of `value`, ties to even; NaN stays NaN, overflow becomes infinity.
uint16_t HalfFromFloat(float value);

// Exact.
inline float FloatFromHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

}  // namespace fkdb
