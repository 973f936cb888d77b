// SPDX-License-Identifier: Apache-2.0
#include "cuda/label_ops.h"

#include <type_traits>
#include <vector>

#include "cuda/host_row.h"

namespace fkdb {
namespace {

void Widen(const Half* in, size_t count, float* out) { RowFromHalf(reinterpret_cast<const uint16_t*>(in), count, out); }
void Widen(const Bf16* in, size_t count, float* out) { RowFromBf16(reinterpret_cast<const uint16_t*>(in), count, out); }
void Round(const float* in, size_t count, Half* out) { RowToHalf(in, count, reinterpret_cast<uint16_t*>(out)); }
void Round(const float* in, size_t count, Bf16* out) { RowToBf16(in, count, reinterpret_cast<uint16_t*>(out)); }

// Rows of numbers as rows of float32: themselves, or one copy for all.
template <class Number>
class FloatRows {
 public:
  explicit FloatRows(size_t classes) : copy_(kCopies ? classes : 0) {}

  const float* Read(const Number* row) {
    if constexpr (kCopies) {
      Widen(row, copy_.size(), copy_.data());
      return copy_.data();
    } else {
      return row;
    }
  }
  // Where a row is made that Finish then puts into its place.
  float* Begin(Number* row) {
    if constexpr (kCopies) return row == nullptr ? nullptr : copy_.data();
    else return row;
  }
  void Finish(Number* row) {
    if constexpr (kCopies) {
      if (row != nullptr) Round(copy_.data(), copy_.size(), row);
    }
  }

 private:
  static constexpr bool kCopies = !std::is_same_v<Number, float>;
  std::vector<float> copy_;
};

}  // namespace

SparseLabels SparseLabelsOf(const LabelSpec& spec, const uint32_t* indices, const float* values) {
  return {spec.kind,
          spec.num_classes,
          spec.num_indices(),
          spec.num_values(),
          spec.values != ValueEncoding::kF32,
          indices,
          values};
}

template <class Number>
void RecoverDense(const SparseLabels& labels, int64_t rows, float tau, Number* dense) {
  FloatRows<Number> floats(labels.num_classes);
  for (int64_t n = 0; n < rows; ++n, dense += labels.num_classes) {
    HostRow row(nullptr, floats.Begin(dense), labels.num_classes, 1);
    RecoverRow<OneLane>(labels, n, tau, &row);
    floats.Finish(dense);
  }
}

template <class Number>
void SoftCrossEntropy(const SparseLabels& labels, int64_t begin, int64_t end, const LossArguments& arguments,
                      const Number* logits, float* losses, Number* gradient) {
  FloatRows<Number> floats(labels.num_classes);
  for (int64_t n = begin; n < end; ++n) {
    const int64_t at = n * labels.num_classes;
    Number* out = gradient == nullptr ? nullptr : gradient + at;
    const float* in = floats.Read(logits + at);
    HostRow row(in, floats.Begin(out), labels.num_classes, arguments.temperature);
    losses[n] = LossRow<OneLane>(labels, n, arguments, &row);
    floats.Finish(out);
  }
}

#define FKDB_INSTANTIATE(Number)                                                                                        \
  template void RecoverDense(const SparseLabels&, int64_t, float, Number*);                                            \
  template void SoftCrossEntropy(const SparseLabels&, int64_t, int64_t, const LossArguments&, const Number*, float*, Number*);
FKDB_FOR_EACH_NUMBER(FKDB_INSTANTIATE)
#undef FKDB_INSTANTIATE

}  // namespace fkdb
