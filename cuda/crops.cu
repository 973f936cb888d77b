// SPDX-License-Identifier: Apache-2.0
// Compiled without contraction to fused multiply-adds: the weights are the CPU's.
#include "cuda/gpu_check.cuh"
#include "cuda/gpu_crops.h"

namespace fkdb::gpu {
namespace {

constexpr int kThreads = 256, kRowsAThread = 8;
constexpr uint32_t kMostWeights = 512;  // that are held at a time
constexpr uint32_t kMostCropsAGrid = 65535;

template <int kChannels>
__global__ void __launch_bounds__(kThreads, 2) ResizeRows(CropFormat format, const ImageCrop* crops, uint8_t* between) {
  const ImageCrop crop = crops[blockIdx.y];
  const uint32_t first = blockIdx.x * kRowsAThread;
  if (first >= crop.box.height) return;
  const ResampleAxis axis(crop.box.width, format.width, format.cubic);
  for (uint32_t x = threadIdx.x; x < format.width; x += kThreads) {
    ResizeColumn<kRowsAThread, kChannels>(crop, format, axis, x, first, between + crop.between);
  }
}

// A block an output row: its weights are computed once.
template <class Number, int kChannels>
__global__ void __launch_bounds__(kThreads) ResizeColumns(CropFormat format, const ImageCrop* crops, const uint8_t* between, Number* out) {
  __shared__ int32_t weights[kMostWeights];
  __shared__ double sum;
  const ImageCrop crop = crops[blockIdx.y];
  const uint32_t y = blockIdx.x;
  const ResampleAxis axis(crop.box.height, format.height, format.cubic);
  const ResampleWindow window = axis.Window(y);
  if (threadIdx.x == 0) {
    double all = 0;
    for (uint32_t i = 0; i < window.count; ++i) all += axis.Weight(window, i);
    sum = all;
  }
  Number* const to = out + static_cast<uint64_t>(blockIdx.y) * kChannels * format.height * format.width;
  for (uint32_t first_x = 0; first_x < format.width; first_x += kThreads) {
    const uint32_t x = first_x + threadIdx.x;
    int32_t sums[kChannels];
    FKDB_UNROLL
    for (int c = 0; c < kChannels; ++c) sums[c] = ResampleAxis::kHalf;
    for (uint32_t from = 0; from < window.count; from += kMostWeights) {
      const uint32_t end = window.count - from < kMostWeights ? window.count : from + kMostWeights;
      __syncthreads();  // the sum is there; the last weights have been used
      for (uint32_t i = from + threadIdx.x; i < end; i += kThreads) weights[i - from] = ResampleAxis::Rounded(axis.Weight(window, i), sum);
      __syncthreads();
      if (x < format.width) {
        AddRows<kChannels>(format, between + crop.between, window.first + from, window.first + end, weights, x, sums);
      }
    }
    if (x < format.width) WriteInput<Number, kChannels>(format, x, y, sums, to);
  }
}

template <class Number, int kChannels>
Result<void> Launch(const CropFormat& format, const ImageCrop* crops, const CropGroup& group, uint8_t* between, Number* out, GpuStream stream) {
  for (uint32_t done = 0; done < group.num_crops; done += kMostCropsAGrid) {
    const uint32_t here = group.num_crops - done < kMostCropsAGrid ? group.num_crops - done : kMostCropsAGrid;
    const uint32_t first = group.first + done;
    ResizeRows<kChannels><<<dim3((group.tallest + kRowsAThread - 1) / kRowsAThread, here), kThreads, 0, stream>>>(format, crops + first, between);
    FKDB_TRY(CheckLaunch("resizing rows"));
    ResizeColumns<Number, kChannels>
        <<<dim3(format.height, here), kThreads, 0, stream>>>(format, crops + first, between, out + first * format.samples());
    FKDB_TRY(CheckLaunch("resizing columns"));
  }
  return {};
}

}  // namespace

template <class Number>
Result<void> CropImages(const CropFormat& format, const ImageCrop* crops, const CropGroup& group, uint8_t* between, Number* out,
                        GpuStream stream) {
  if (format.height == 0 || format.width == 0) return Fail(ErrorCode::kInvalidArgument, "inputs of no pixels");
  if (format.channels == 1) return Launch<Number, 1>(format, crops, group, between, out, stream);
  if (format.channels == 3) return Launch<Number, 3>(format, crops, group, between, out, stream);
  return Fail(ErrorCode::kInvalidArgument, std::to_string(format.channels) + " channels: expected 1 or 3");
}

FKDB_FOR_EACH_NUMBER(FKDB_INSTANTIATE_GPU_CROPS)

}  // namespace fkdb::gpu
