// SPDX-License-Identifier: Apache-2.0
// Processes that train one student together: each computes on its own images, and gradients are averaged while the backward pass
// runs (c10d's Reducer; gloo between CPUs, NCCL between GPUs). Includes Torch.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <torch/nn/module.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "format/result.h"
#include "trainer/launch.h"

namespace fkdb {

class DataParallel {
 public:
  // Waits five minutes for the others. Errors: IoError (nobody there), Unsupported (GPUs, in a build without NCCL).
  // `job`: tells its store from other programs'.
  static Result<std::unique_ptr<DataParallel>> Join(const Launch& launch, const std::string& job, c10::Device device);
  virtual ~DataParallel() = default;

  virtual int rank() const = 0;
  virtual int ranks() const = 0;

  // What follows is called by all of them, in the same order; an error, IoError, is that another one ended.

  // Takes over rank 0's parameters and buffers. `model` stays as it is and outlives this. some_unused: a step may leave parameters out.
  virtual Result<void> Begin(const torch::nn::Module& model, bool some_unused) = 0;
  // The backward pass from `output` that is the last of a step: its gradients and those of the passes before become the average.
  virtual Result<void> Backward(const at::Tensor& output, const at::Tensor& gradient) = 0;
  // Rank 0's.
  virtual Result<void> Share(const std::vector<at::Tensor>& tensors) = 0;
  virtual Result<void> Share(std::vector<std::byte>* bytes) = 0;

  // Sums of a few numbers, made while other work goes on: Start, then once Finish.
  virtual Result<void> StartSum(const std::vector<double>& numbers) = 0;
  virtual Result<std::vector<double>> FinishSum() = 0;
};

}  // namespace fkdb
