// SPDX-License-Identifier: Apache-2.0
// Weights that a model begins with: somebody's file, under torchvision's or timm's names. Includes
// Torch: for trainer's own sources only.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "format/result.h"
#include "trainer/models.h"
#include "trainer/safetensors.h"

namespace fkdb {

// From a safetensors file, or from what torch.save wrote: a dict of tensors, alone or as "state_dict" or
// "model" of another dict. Read as data: nothing of a pickle runs. A "module." before every name is left out.
// Errors: NotFound, IoError, Corruption, Unsupported (before PyTorch 1.6), ResourceExhausted.
Result<TensorFile> ReadWeights(const std::filesystem::path& path);

// All of the model's tensors, and no other, must be in the file. Numbers of other types are converted, whole
// ones to whole ones. fresh_classifier: empty, or the layer that keeps what it has, whatever the file says of it.
// Errors: those of reading; Mismatch, naming the first tensor that does not fit.
Result<void> LoadInitialWeights(const std::filesystem::path& path, std::string_view classifier, bool fresh_classifier, Model* model);

}  // namespace fkdb
