// SPDX-License-Identifier: Apache-2.0
// What changes a student's weights: an optimizer of Torch with its parameter groups, in and out of checkpoints. Includes Torch.
#pragma once

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include <memory>
#include <string>

#include "format/result.h"
#include "trainer/optimizer_config.h"
#include "trainer/safetensors.h"

namespace fkdb {

// Of all parameters of the model that are trained. Errors: InvalidArgument.
Result<std::unique_ptr<torch::optim::Optimizer>> MakeOptimizer(const torch::nn::Module& model, const OptimizerConfig& config);

void SetRate(torch::optim::Optimizer* optimizer, double rate);

// Its state, under `prefix` + what it is of a parameter + "." + the parameter's name: "momentum.", "mean.", "square.", "step.".
void StoreOptimizer(const torch::nn::Module& model, torch::optim::Optimizer& optimizer, const std::string& prefix, TensorFile* file);
// Errors: Mismatch, naming the first tensor that differs.
Result<void> LoadOptimizer(const TensorFile& file, const std::string& prefix, const torch::nn::Module& model,
                           torch::optim::Optimizer* optimizer);

}  // namespace fkdb
