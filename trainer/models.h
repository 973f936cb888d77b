// SPDX-License-Identifier: Apache-2.0
// The networks fkdb builds itself, by name: students, and teachers once they are trained. Parameters
// and buffers have torchvision's or timm's names and shapes. Includes Torch: for trainer's own sources only.
//
//   resnet18 .. resnet101          torchvision's, for inputs of about 224 pixels
//   tf_mobilenetv3_small_075, 100  timm's MobileNetV3-Small, the mobile students of MEAL V2
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
#include "trainer/model_names.h"

namespace fkdb {

class Model : public torch::nn::Module {
 public:
  // (N, channels, H, W) -> (N, classes)
  virtual torch::Tensor forward(torch::Tensor x) = 0;
};

// With fresh weights from Torch's default generator. Errors: InvalidArgument (unknown name).
Result<std::shared_ptr<Model>> MakeModel(std::string_view name, int64_t channels, int64_t classes);

// Its last layer, whose weight has a row for each class: "fc". Empty if the name is not known.
std::string_view ClassifierOf(std::string_view model_name);

// What an optimizer gets: a parameter that two names share comes once.
std::vector<torch::Tensor> DistinctParameters(const torch::nn::Module& model);

}  // namespace fkdb
