// SPDX-License-Identifier: Apache-2.0
// Who works on one row together. A kernel body is a template over its group: on the GPU a group is a warp or a block
// (gpu_lanes.cuh), on the CPU it is one lane, whose long loops run over the processor's vectors (host_row.h). The tests
// have one more, of threads that meet at barriers: it runs the GPU's bodies where there is no GPU.
//
// A group offers lane() and size(); Meet, behind which its lanes see what others wrote before it; Max and Sum over its
// lanes, each of which gets the result; Accumulator, the type of sums over a row. All lanes must call them, in one order.
#pragma once

#include "cuda/number.h"

namespace fkdb {

struct OneLane {
  using Accumulator = double;  // one lane adds up a whole row: float would lose digits at large C

  static constexpr int lane() { return 0; }
  static constexpr int size() { return 1; }
  static void Meet() {}
  static float Max(float value) { return value; }
  // Replaces each of the values by its sum.
  template <class... Values>
  static void Sum(Values&...) {}
};

}  // namespace fkdb
