// SPDX-License-Identifier: Apache-2.0
// The two passes of resampling on 8-bit samples, for several instruction sets; every one gives the
// same bits: sums of sample x weight in 32-bit integers, rounded, shifted, clamped. For resample.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "image/resample_weights.h"

namespace fkdb {

// What must be readable behind the last sample of an input row.
constexpr size_t kRowPadding = 128;

// For each output position the window of input positions it averages and their weights in fixed
// point, at most 2^22 in size. Behind a window's end weights are 0.
struct ResampleKernel {
  uint32_t in = 0;   // positions
  uint32_t out = 0;
  uint32_t taps = 0;              // weights a position, a multiple of 4
  std::vector<uint32_t> first;    // (out)
  std::vector<uint32_t> count;    // (out)
  std::vector<int32_t> weights;   // (out, taps)
};

// Scratch memory of the passes.
class PassScratch {
 public:
  // At least `count` words, aligned to 64 bytes; what was there is gone.
  uint32_t* Words(size_t count);

 private:
  struct alignas(64) Line {
    uint32_t words[16];
  };
  std::vector<Line> lines_;
};

// Each of `num_rows` rows of interleaved samples (kernel.in, channels) to a row of `out`
// (kernel.out, channels), mirrored if `flip`. Rows of `out` are out_stride apart, a multiple of 64.
void HorizontalPass(const ResampleKernel& kernel, uint32_t channels, bool flip, const uint8_t* const* rows,
                    uint32_t num_rows, uint8_t* out, size_t out_stride, PassScratch* scratch);

// Rows of in_stride, a multiple of 64, to kernel.out rows of `row_bytes` bytes, one after the other.
void VerticalPass(const ResampleKernel& kernel, const uint8_t* in, size_t in_stride, size_t row_bytes, uint8_t* out,
                  PassScratch* scratch);

}  // namespace fkdb
