// SPDX-License-Identifier: Apache-2.0
// Who works on one row together. A kernel body is a template over its group: on the GPU a group is a
// warp or a block whose lanes take elements lane, lane + size, ..; on the CPU it is one lane, whose
// long loops run over vectors of whatever width the processor has.
//
// A group offers: lane(), size(); Sum and Max over the lanes (every lane gets the result);
// Accumulator, the type in which sums over a row are handed on; and the long loops over a row of
// logits below.
#pragma once

#include <cstdint>

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

  // The largest of `count` numbers.
  static float LargestOf(const float* row, uint32_t count);
  // With z = (row - largest) * inverse_t: the sums of exp(z) and of z; exp(z) itself goes to `exps`
  // unless that is null. `exps` may be `row`. A NaN in the row makes both sums NaN.
  struct Sums {
    Accumulator exp, plain;
  };
  static Sums SumExp(const float* row, uint32_t count, float largest, float inverse_t, float* exps);
  // row = row * factor - term.
  static void ScaleAndShift(float* row, uint32_t count, float factor, float term);

  // Labels of all classes: y_c = values_c, or exp((values_c - shift) * inverse_tau) of stored logits.
  struct DenseLabel {
    const float* values;
    bool exponential;
    float shift, inverse_tau;
  };
  // With z as above: the sums of y and of y * z.
  struct Weights {
    Accumulator label, dot;
  };
  static Weights WeighLogits(const DenseLabel& label, const float* row, uint32_t count, float largest, float inverse_t);
  // row = row - factor * y.
  static void SubtractLabel(const DenseLabel& label, float* row, uint32_t count, float factor);
};

}  // namespace fkdb
