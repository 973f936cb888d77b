// SPDX-License-Identifier: Apache-2.0
// The types of logits, gradients and dense labels in memory. All arithmetic is in float32: numbers of 16 bits are
// widened exactly and rounded once, to nearest even.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include "format/half.h"
#include "format/host_device.h"

namespace fkdb {

struct Half {  // IEEE 754 binary16
  uint16_t bits;
};
struct Bf16 {  // bfloat16
  uint16_t bits;
};

// FOR(type) for each.
#define FKDB_FOR_EACH_NUMBER(FOR) FOR(float) FOR(Half) FOR(Bf16)

FKDB_HOST_DEVICE inline float ToFloat(float number) { return number; }
FKDB_HOST_DEVICE inline float ToFloat(Half number) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(number.bits));
#else
  return FloatFromHalf(number.bits);
#endif
}
FKDB_HOST_DEVICE inline float ToFloat(Bf16 number) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(uint32_t{number.bits} << 16);
#else
  return FloatFromBf16(number.bits);
#endif
}

FKDB_HOST_DEVICE inline void FromFloat(float value, float* number) { *number = value; }
FKDB_HOST_DEVICE inline void FromFloat(float value, Half* number) {
#ifdef __CUDA_ARCH__
  number->bits = __half_as_ushort(__float2half_rn(value));
#else
  number->bits = HalfFromFloat(value);
#endif
}
FKDB_HOST_DEVICE inline void FromFloat(float value, Bf16* number) {
#ifdef __CUDA_ARCH__
  number->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
  number->bits = Bf16FromFloat(value);
#endif
}

// Two of them, in one register of the GPU: a the lower.
FKDB_HOST_DEVICE inline uint32_t PairFromFloats(float a, float b, const Half*) {
#ifdef __CUDA_ARCH__
  const __half2 pair = __floats2half2_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&pair);
#else
  return HalfFromFloat(a) | uint32_t{HalfFromFloat(b)} << 16;
#endif
}
FKDB_HOST_DEVICE inline uint32_t PairFromFloats(float a, float b, const Bf16*) {
#ifdef __CUDA_ARCH__
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&pair);
#else
  return Bf16FromFloat(a) | uint32_t{Bf16FromFloat(b)} << 16;
#endif
}

}  // namespace fkdb
