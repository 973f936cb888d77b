// SPDX-License-Identifier: Apache-2.0
// Compact labels to arrays, on the GPU. Compiled without contraction to fused multiply-adds: the bits are the CPU's.
#include <algorithm>

#include "cuda/gpu_check.cuh"
#include "cuda/gpu_lanes.cuh"
#include "cuda/gpu_ops.h"
#include "cuda/unpack_kernels.h"
#include "format/compact.h"
#include "format/packed.h"

namespace fkdb::gpu {
namespace {

constexpr int kThreads = 256;

// The levels as constants of the device; a block takes those it needs to shared memory, where its threads may each read
// another.
template <size_t N>
struct Table {
  double level[N];
  constexpr explicit Table(const std::array<double, N>& levels) : level{} {
    for (size_t i = 0; i < N; ++i) level[i] = levels[i];
  }
};
__constant__ constexpr Table kTail(kTailLevels);
__constant__ constexpr Table kRatio(kRatioLevels);
__constant__ constexpr Table kFull(kFullLevels);

template <size_t N>
__device__ void TakeLevels(const Table<N>& table, double* shared) {
  for (size_t i = threadIdx.x; i < N; i += blockDim.x) shared[i] = table.level[i];
}

// 8 bytes from any byte on, of which the first `bytes` matter: nothing behind the words that hold these is read.
__device__ uint64_t LoadWord(const std::byte* base, int64_t at, uint32_t bytes) {
  const auto* words = reinterpret_cast<const uint32_t*>(base + (at & ~int64_t{3}));
  const auto skip = static_cast<uint32_t>(at & 3), end = skip + bytes;
  const uint32_t first = words[0], second = end > 4 ? words[1] : 0, third = end > 8 ? words[2] : 0;
  return uint64_t{__funnelshift_r(second, third, skip * 8)} << 32 | __funnelshift_r(first, second, skip * 8);
}

// A thread a crop; the block's values meet in shared memory, so that they are written in one stretch.
__global__ void __launch_bounds__(kThreads)
    UnpackWords(const std::byte* values, int64_t rows, uint32_t bytes, uint32_t k, bool has_tail, float* out) {
  __shared__ double tail[1 << kTailBits], ratio[1 << kRatioBits];
  __shared__ float staged[kThreads * kMostWordValues];
  TakeLevels(kTail, tail);
  TakeLevels(kRatio, ratio);
  __syncthreads();
  const int64_t first = int64_t{blockIdx.x} * kThreads, n = first + threadIdx.x;
  if (n < rows) UnpackWord(LoadWord(values, n * bytes, bytes), k, has_tail, tail, ratio, staged + threadIdx.x * k);
  __syncthreads();
  const int64_t here = rows - first < kThreads ? rows - first : kThreads;
  for (int64_t i = threadIdx.x; i < here * k; i += kThreads) out[first * k + i] = staged[i];
}

// The same for more values than a word holds: codes are read as they are needed.
__global__ void __launch_bounds__(kThreads)
    UnpackLong(const std::byte* values, int64_t rows, uint32_t bytes, uint32_t k, bool has_tail, float* out) {
  const int64_t n = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (n >= rows) return;
  const auto* codes = reinterpret_cast<const uint8_t*>(values) + n * bytes;
  const auto ratio_at = [&](uint32_t i) {  // from 1
    const uint32_t bit = (has_tail ? kTailBits : 0) + (i - 1) * kRatioBits, skip = bit % 8;
    uint32_t code = codes[bit / 8];
    if (skip + kRatioBits > 8) code |= uint32_t{codes[bit / 8 + 1]} << 8;
    return kRatio.level[code >> skip & ((1u << kRatioBits) - 1)];
  };
  double sum = 1, weight = 1;
  if (has_tail) sum += kTail.level[codes[0] & ((1u << kTailBits) - 1)];
  for (uint32_t i = 1; i < k; ++i) sum += weight *= ratio_at(i);
  const double scale = 1 / sum;
  weight = 1;
  for (uint32_t i = 0; i < k; ++i) {
    if (i > 0) weight *= ratio_at(i);
    out[n * k + i] = static_cast<float>(fmax(weight * scale, kSmallestPacked));
  }
}

// A block 32 crops: each lane of its first warp adds up one, in the order of its classes; then all threads write.
__global__ void __launch_bounds__(kThreads) UnpackFull(const std::byte* values, int64_t rows, uint32_t classes, float* out) {
  __shared__ double level[1 << kFullBits], sums[kWarp];
  TakeLevels(kFull, level);
  __syncthreads();
  const int64_t first = int64_t{blockIdx.x} * kWarp;
  const auto* codes = reinterpret_cast<const uint8_t*>(values) + first * classes;
  const int here = static_cast<int>(rows - first < kWarp ? rows - first : kWarp);
  if (threadIdx.x < here) {
    double sum = 0;
    for (uint32_t c = 0; c < classes; ++c) sum += level[codes[int64_t{threadIdx.x} * classes + c]];
    sums[threadIdx.x] = sum;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < here; i += kThreads / kWarp) {
    const int64_t at = int64_t{i} * classes;
    for (uint32_t c = static_cast<uint32_t>(WarpLanes::lane()); c < classes; c += kWarp) {
      out[first * classes + at + c] = static_cast<float>(level[codes[at + c]] / sums[i]);
    }
  }
}

// A block a crop: largest and step, 32 bits each, then a code a class.
__global__ void __launch_bounds__(kThreads) UnpackLogits(const std::byte* values, uint32_t classes, float* out) {
  constexpr uint32_t kHeader = 8;
  const int64_t n = blockIdx.x;
  const auto* row = reinterpret_cast<const uint8_t*>(values) + n * (kHeader + classes);
  const uint64_t header = LoadWord(values, n * (kHeader + classes), kHeader);
  const double largest = __uint_as_float(static_cast<uint32_t>(header)), step = __uint_as_float(static_cast<uint32_t>(header >> 32));
  for (uint32_t c = threadIdx.x; c < classes; c += kThreads) {
    out[n * classes + c] = static_cast<float>(largest - step * static_cast<double>(row[kHeader + c]));
  }
}

template <class In, class Out>
__global__ void __launch_bounds__(kThreads) Widen(const In* in, int64_t count, Out* out) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += int64_t{gridDim.x} * kThreads) {
    if constexpr (std::is_same_v<Out, float>) out[i] = ToFloat(in[i]);
    else out[i] = in[i];
  }
}

unsigned BlocksFor(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

template <class In, class Out>
void LaunchWiden(const std::byte* in, int64_t count, Out* out, GpuStream stream) {
  constexpr int64_t kMostBlocks = 1 << 16;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(BlocksFor(count), kMostBlocks));
  Widen<<<blocks, kThreads, 0, stream>>>(reinterpret_cast<const In*>(in), count, out);
}

void LaunchPacked(const LabelSpec& spec, const std::byte* values, int64_t rows, float* out, GpuStream stream) {
  const auto bytes = static_cast<uint32_t>(CompactValueBytes(spec));
  if (spec.kind == LabelKind::kFull) {
    UnpackFull<<<static_cast<unsigned>((rows + kWarp - 1) / kWarp), kThreads, 0, stream>>>(values, rows, spec.num_classes, out);
  } else if (spec.kind == LabelKind::kLogits) {
    UnpackLogits<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(values, spec.num_classes, out);
  } else if (spec.top_k <= kMostWordValues) {
    UnpackWords<<<BlocksFor(rows), kThreads, 0, stream>>>(values, rows, bytes, spec.top_k, spec.has_tail(), out);
  } else {
    UnpackLong<<<BlocksFor(rows), kThreads, 0, stream>>>(values, rows, bytes, spec.top_k, spec.has_tail(), out);
  }
}

}  // namespace

Result<void> UnpackLabels(const LabelSpec& spec, const std::byte* indices, const std::byte* values, int64_t rows,
                          uint32_t* out_indices, float* out_values, GpuStream stream) {
  const int64_t num_indices = rows * spec.num_indices(), num_values = rows * spec.num_values();
  if (num_indices > 0 && spec.wide_indices()) {
    FKDB_TRY(CopyOnDevice(reinterpret_cast<std::byte*>(out_indices), indices, static_cast<size_t>(num_indices) * 4, stream));
  } else if (num_indices > 0) {
    LaunchWiden<uint16_t>(indices, num_indices, out_indices, stream);
    FKDB_TRY(CheckLaunch("unpacking indices"));
  }
  if (num_values == 0) return {};
  switch (spec.values) {
    case ValueEncoding::kF32:
      return CopyOnDevice(reinterpret_cast<std::byte*>(out_values), values, static_cast<size_t>(num_values) * 4, stream);
    case ValueEncoding::kF16:
      LaunchWiden<Half>(values, num_values, out_values, stream);
      break;
    case ValueEncoding::kBf16:
      LaunchWiden<Bf16>(values, num_values, out_values, stream);
      break;
    case ValueEncoding::kPacked:
      LaunchPacked(spec, values, rows, out_values, stream);
      break;
  }
  return CheckLaunch("unpacking values");
}

}  // namespace fkdb::gpu
