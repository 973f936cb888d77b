// SPDX-License-Identifier: Apache-2.0
// The groups of the GPU: the 32 lanes of a warp, or all kLanes threads of a block. Sums are taken in a fixed order:
// the same bits at every run.
#pragma once

#include <cstdint>

#include "cuda/lane_group.h"

namespace fkdb {

constexpr int kWarp = 32;

struct WarpLanes {
  using Accumulator = float;

  static __device__ void Meet() { __syncwarp(); }

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
  static constexpr __host__ __device__ int size() { return kWarp; }
  static __device__ float Max(float value) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      value = fmaxf(value, __shfl_xor_sync(~0u, value, distance));
    }
    return value;
  }
  template <class... Values>
  static __device__ void Sum(Values&... values) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      ((values += __shfl_xor_sync(~0u, values, distance)), ...);
    }
  }
};

template <int kLanes>
struct BlockLanes {
  using Accumulator = float;

  static __device__ void Meet() { __syncthreads(); }

  static __device__ int lane() { return static_cast<int>(threadIdx.x); }
  static constexpr __host__ __device__ int size() { return kLanes; }
  static __device__ float Max(float value) {
    value = WarpLanes::Max(value);
    Exchange(-INFINITY, value);
    return WarpLanes::Max(value);
  }
  template <class... Values>
  static __device__ void Sum(Values&... values) {
    WarpLanes::Sum(values...);
    Exchange(0, values...);
    WarpLanes::Sum(values...);
  }

 private:
  static constexpr int kWarps = kLanes / kWarp, kMostValues = 2;
  static_assert(kWarps <= kWarp);

  // Lane i of every warp gets the values of warp i, or `none`.
  template <class... Values>
  static __device__ void Exchange(float none, Values&... values) {
    static_assert(sizeof...(values) <= kMostValues);
    __shared__ float of_warps[kMostValues][kWarps];
    const int warp = lane() / kWarp, in_warp = lane() % kWarp;
    __syncthreads();  // some may still read what was exchanged last
    int put = 0, take = 0;
    if (in_warp == 0) ((of_warps[put++][warp] = values), ...);
    __syncthreads();
    ((values = in_warp < kWarps ? of_warps[take++][in_warp] : none), ...);
  }
};

}  // namespace fkdb
