// SPDX-License-Identifier: Apache-2.0
// The lanes that work on one row together. A kernel body is a template over its group: a group of
// one lane compiled for the CPU is a plain loop; on the GPU a group is a warp or a block.
//
// A group offers: lane(), size() (a lane does elements lane, lane + size, ..), Sum and Max over the
// lanes (every lane gets the result), and Accumulator, the type in which a lane adds up.
#pragma once

#ifdef __CUDACC__
#define FKDB_HOST_DEVICE __host__ __device__
#else
#define FKDB_HOST_DEVICE
#endif

namespace fkdb {

struct OneLane {
  using Accumulator = double;  // one lane adds up a whole row: float would lose digits at large C

  FKDB_HOST_DEVICE static constexpr int lane() { return 0; }
  FKDB_HOST_DEVICE static constexpr int size() { return 1; }
  FKDB_HOST_DEVICE static Accumulator Sum(Accumulator value) { return value; }
  FKDB_HOST_DEVICE static float Max(float value) { return value; }
};

}  // namespace fkdb
