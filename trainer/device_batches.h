// SPDX-License-Identifier: Apache-2.0
// A loader's batches as tensors on the device that trains: where they lie on the CPU, or through a GpuFeed. Includes Torch.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <array>
#include <memory>
#include <optional>

#include "cuda/label_kernels.h"
#include "trainer/batch_loader.h"
#include "trainer/gpu_feed.h"

namespace fkdb {

// One thread at a time.
class DeviceBatches {
 public:
  // Of a loader that is made here. On a GPU its batches are in pinned memory and their labels expanded by the GPU, which
  // makes the crops too if config.crop is false. Borrows data and supervision. Errors: Cuda, Unsupported (the GPU has no such
  // crops), those of BatchLoader::Make.
  static Result<DeviceBatches> Make(const DataSet& data, const Supervision& supervision, LoaderConfig config, c10::Device device);

  struct Batch {
    const TrainBatch* host;
    at::Tensor inputs;    // (N, channels, height, width), float32
    SparseLabels labels;  // of N rows, on the device
    at::Tensor indices, values;  // which on a GPU `labels` lie in
  };
  // The next batch, or null after the last; work on it is to be put on Torch's current stream before the next call.
  // Errors: those of the loader; Cuda, ResourceExhausted.
  Result<const Batch*> Next();
  // When that work has been put there, and before anything waits for it: sends the next batch on its way.
  void Prefetch();

  const BatchLoader& loader() const { return *loader_; }

 private:
  DeviceBatches(std::unique_ptr<BatchLoader> loader, c10::Device device, std::array<int64_t, 3> shape)
      : loader_(std::move(loader)), device_(device), shape_(shape) {}
  Result<void> OnCpu();
  Result<void> OnGpu();

  std::unique_ptr<BatchLoader> loader_;
  c10::Device device_;
  std::array<int64_t, 3> shape_;  // of an input
  std::optional<GpuFeed> feed_;  // on GPUs
  Batch batch_ = {};
};

}  // namespace fkdb
