// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <type_traits>

#include "cuda/gpu_check.cuh"
#include "cuda/gpu_lanes.cuh"
#include "cuda/gpu_ops.h"
#include "cuda/tile_row.h"

namespace fkdb::gpu {
namespace {

constexpr int kWarpsABlock = 4;

// How rows are dealt to the threads of a block.
struct WarpRows {
  using Group = WarpLanes;
  static constexpr int kThreads = kWarp * kWarpsABlock, kRows = kWarpsABlock;
  static __device__ int64_t Row() { return int64_t{blockIdx.x} * kRows + threadIdx.x / kWarp; }
};
template <int kLanes>
struct BlockRows {
  using Group = BlockLanes<kLanes>;
  static constexpr int kThreads = kLanes, kRows = 1;
  static __device__ int64_t Row() { return blockIdx.x; }
};

// Blocks that a multiprocessor's registers suffice for: as many as they can be without spilling.
template <class Number, bool kDense, int kParts>
constexpr int kThreadsAtOnce = kParts == 1 && (kDense || sizeof(Number) == 2) ? 768 : kDense ? 512 : 640;
template <class Rows, class Number, bool kDense, int kParts>
constexpr int kBlocks = Rows::kThreads > 256 ? 1 : kThreadsAtOnce<Number, kDense, kParts> / Rows::kThreads;

template <class Rows, class Number, int kNumbers, bool kOneTile, bool kDense, int kParts, bool kVectorsAlone>
__global__ void __launch_bounds__(Rows::kThreads, (kBlocks<Rows, Number, kDense, kParts>))
    LossKernel(SparseLabels labels, int64_t rows, LossArguments arguments, const Number* logits, float* losses, Number* gradient) {
  const int64_t n = Rows::Row();
  if (n >= rows) return;
  const int64_t at = n * labels.num_classes;
  TileRow<Number, typename Rows::Group, kNumbers, kOneTile, kDense, kVectorsAlone> row(
      logits + at, gradient == nullptr ? nullptr : gradient + at, labels.num_classes, arguments.temperature);
  const float loss = LossRow<typename Rows::Group, kParts>(labels, n, arguments, &row);
  if (Rows::Group::lane() == 0) losses[n] = loss;
}

template <class Rows, class Number, bool kDense>
__global__ void __launch_bounds__(Rows::kThreads) RecoverKernel(SparseLabels labels, int64_t rows, float tau, Number* dense) {
  const int64_t n = Rows::Row();
  if (n >= rows) return;
  TileRow<Number, typename Rows::Group, 16, /*kOneTile=*/false, kDense> row(nullptr, dense + n * labels.num_classes,
                                                                           labels.num_classes, 1);
  RecoverRow<typename Rows::Group>(labels, n, tau, &row);
}

template <class Rows, int kNumbers, bool kOneTile>
struct Arrangement {
  using RowsOf = Rows;
  static constexpr int kPerLane = kNumbers;
  static constexpr bool kWhole = kOneTile;
  template <class Number>
  using Row = TileRow<Number, typename Rows::Group, kNumbers, true, false>;
  template <class Number>
  static bool Holds(const SparseLabels& labels) {
    return labels.num_classes <= static_cast<uint32_t>(Row<Number>::kCapacity) && labels.num_indices <= static_cast<uint32_t>(Rows::Group::size());
  }
};
using Small = Arrangement<WarpRows, 8, true>;
using Medium = Arrangement<WarpRows, 32, true>;
using Longer = Arrangement<BlockRows<64>, 32, true>;
using Large = Arrangement<BlockRows<256>, 32, true>;
using Huge = Arrangement<BlockRows<768>, 32, true>;
constexpr int kMostLanes = 768;
using Endless = Arrangement<BlockRows<kMostLanes>, 16, false>;
static_assert(TileRow<Bf16, BlockLanes<256>, 32, true, true>::kCapacity == kOneReadClassesDense);
static_assert(TileRow<Bf16, BlockLanes<768>, 32, true, false>::kCapacity == kOneReadClasses);

template <class Rows>
unsigned Blocks(int64_t rows) {
  return static_cast<unsigned>((rows + Rows::kRows - 1) / Rows::kRows);
}

// Calls launch with the smallest arrangement whose tile holds a row of C classes, wherever it begins, and that has a lane for
// each index, and whether labels are dense. Those, and mixed ones, leave no registers for 768 threads of 32 numbers.
template <class Number, class Launch>
void ForLabels(const SparseLabels& labels, bool mixed, Launch launch) {
  const auto with = [&](auto dense) {
    if (Small::Holds<Number>(labels)) return launch(Small{}, dense);
    if (Medium::Holds<Number>(labels)) return launch(Medium{}, dense);
    if (Longer::Holds<Number>(labels)) return launch(Longer{}, dense);
    if (Large::Holds<Number>(labels)) return launch(Large{}, dense);
    if constexpr (!dense.value) {
      if (!mixed && Huge::Holds<Number>(labels)) return launch(Huge{}, dense);
    }
    launch(Endless{}, dense);
  };
  if (labels.num_indices == 0) return with(std::true_type{});
  with(std::false_type{});
}

}  // namespace

template <class Number>
Result<void> RecoverDense(const SparseLabels& labels, int64_t rows, float tau, Number* dense, GpuStream stream) {
  if (rows == 0) return {};
  const auto launch = [&]<class Rows, bool kDense>(Rows, std::bool_constant<kDense>) {
    RecoverKernel<Rows, Number, kDense><<<Blocks<Rows>(rows), Rows::kThreads, 0, stream>>>(labels, rows, tau, dense);
  };
  const auto with = [&](auto is_dense) {
    constexpr uint32_t kLong = 4096;
    labels.num_classes < kLong ? launch(WarpRows{}, is_dense) : launch(BlockRows<256>{}, is_dense);
  };
  labels.num_indices == 0 ? with(std::true_type{}) : with(std::false_type{});
  return CheckLaunch("label recovery");
}

template <class Number>
Result<void> SoftCrossEntropy(const SparseLabels& labels, int64_t rows, const LossArguments& arguments,
                              const Number* logits, float* losses, Number* gradient, GpuStream stream) {
  if (rows == 0) return {};
  if (static_cast<const void*>(logits) == gradient && labels.num_indices > kMostLanes) {
    return Fail(ErrorCode::kUnsupported, "labels of more than " + std::to_string(kMostLanes) + " indices: their gradient cannot take the logits' place");
  }
  ForLabels<Number>(labels, arguments.partners != nullptr, [&]<class A, bool kDense>(A, std::bool_constant<kDense>) {
    using Rows = A::RowsOf;
    const auto launch = [&]<int kParts, bool kVectorsAlone>(std::integral_constant<int, kParts>, std::bool_constant<kVectorsAlone>) {
      LossKernel<Rows, Number, A::kPerLane, A::kWhole, kDense, kParts, kVectorsAlone>
          <<<Blocks<Rows>(rows), Rows::kThreads, 0, stream>>>(labels, rows, arguments, logits, losses, gradient);
    };
    if constexpr (!std::is_same_v<A, Huge>) {
      if (arguments.partners != nullptr) return launch(std::integral_constant<int, 2>{}, std::false_type{});
    }
    if constexpr (A::kWhole && !kDense) {
      if (A::template Row<Number>::AreVectorsAlone(logits, gradient, labels.num_classes)) return launch(std::integral_constant<int, 1>{}, std::true_type{});
    }
    launch(std::integral_constant<int, 1>{}, std::false_type{});
  });
  return CheckLaunch("soft cross-entropy");
}

FKDB_FOR_EACH_NUMBER(FKDB_INSTANTIATE_GPU_OPS)

}  // namespace fkdb::gpu
