// SPDX-License-Identifier: Apache-2.0
// A model's state to and from files of named tensors. Includes Torch: for
// trainer's own sources only.
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <filesystem>
#include <string>

#include "format/result.h"
#include "trainer/safetensors.h"

namespace fkdb {

// Has its type a name in such files?
bool IsStorable(const torch::Tensor& tensor);
// To `dtype`, where both are floats or both whole numbers; else, and of types that Torch has no name for, left as it is.
void Convert(const std::string& dtype, StoredTensor* tensor);

// Parameters and buffers under `prefix` + their name.
void StoreModel(const torch::nn::Module& model, const std::string& prefix, TensorFile* file);
// All of the model's parameters and buffers, and no other tensor under the prefix, must be in the
// file with their dtype and shape. num_batches_tracked may be missing. Errors: Mismatch, naming the
// first tensor that differs.
Result<void> LoadModel(const TensorFile& file, const std::string& prefix, torch::nn::Module* model);

// One tensor, wherever it lies.
void StoreTensor(const torch::Tensor& tensor, const std::string& name, TensorFile* file);
// Over `target`, whose dtype and shape it must have. Errors: Mismatch, naming it.
Result<void> LoadTensor(const TensorFile& file, const std::string& name, torch::Tensor target);

}  // namespace fkdb
