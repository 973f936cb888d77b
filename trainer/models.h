// SPDX-License-Identifier: Apache-2.0
// The networks fkdb builds itself, by name: students, and teachers once they are trained. Parameters
// and buffers have torchvision's names and shapes. Includes Torch: for trainer's own sources only.
//
//   resnet18      ResNet-18 (torchvision's), for inputs of about 224 pixels
//   resnet6-wN    six layers for inputs of about 28 to 32 pixels: a 3x3 stem of N channels at full
//                 size, two residual blocks of stride 2 with 2N and 4N channels, a classifier
#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "format/result.h"

namespace fkdb {

class Model : public torch::nn::Module {
 public:
  // (N, channels, H, W) -> (N, classes)
  virtual torch::Tensor forward(torch::Tensor x) = 0;
};

bool IsModelName(std::string_view name);
// "resnet18, resnet6-wN (N from 1 to 1024)"
std::string ModelNames();

// With fresh weights from Torch's default generator. Errors: InvalidArgument (unknown name).
Result<std::shared_ptr<Model>> MakeModel(std::string_view name, int64_t channels, int64_t classes);

}  // namespace fkdb
