// SPDX-License-Identifier: Apache-2.0
// MEAL V2's discriminator (Shen & Savvides 2020): a small network that learns to tell a student's outputs from a teacher's labels, and
// whose loss is added to the student's. Includes Torch.
#pragma once

#include <torch/nn/modules/container/sequential.h>
#include <torch/optim/optimizer.h>

#include <memory>
#include <string>

#include "format/label_spec.h"
#include "format/result.h"
#include "trainer/safetensors.h"

namespace fkdb {

// Errors: InvalidArgument (a kind of label that gives most classes nothing, which anything could tell).
Result<void> CheckDiscriminator(double rate, const LabelSpec& spec);

class Discriminator {
 public:
  // Layers C -> C / 8 -> C / 64 -> 2, of 8 units at least, with ReLU between them, on `device`; SGD with momentum 0.9. rate: of it. The
  // original's code has a ReLU behind the last as well, so that it cannot say "no", and a unit below 0 never learns again.
  Discriminator(uint32_t num_classes, double rate, c10::Device device);

  // logits (N, C) of any float, without history; labels (N, C), probabilities: seen as logits, and both with a mean of 0 in each row,
  // as a label's logits are known but for a constant. Adds `weight` times the loss's gradient to `gradient`,
  // which is as the logits; the discriminator's own waits for Step. Returns the loss: binary cross-entropy of both outputs, for the
  // student's rows (1, 0), for the labels' (0, 1), the mean over all.
  double AddGradient(const torch::Tensor& logits, const torch::Tensor& labels, float weight, torch::Tensor* gradient);
  void Step();

  // Weights and momentum, under `prefix`. Load's errors: Mismatch, naming the first tensor that differs.
  void Store(const std::string& prefix, TensorFile* file) const;
  Result<void> Load(const TensorFile& file, const std::string& prefix);

 private:
  torch::nn::Sequential layers_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
};

}  // namespace fkdb
