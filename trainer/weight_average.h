// SPDX-License-Identifier: Apache-2.0
// The exponential moving average of a student's weights, which is often the better student. Includes Torch.
#pragma once

#include <torch/types.h>

#include <memory>
#include <vector>

#include "trainer/models.h"

namespace fkdb {

class WeightAverage {
 public:
  // Begins as the weights of `model`, which must outlive it. `average`: a model of the same shape, on the same device, which
  // takes them over. decay: what stays of the average at each step, 0 to 1.
  WeightAverage(const Model& model, std::shared_ptr<Model> average, double decay);

  // After a step: average = decay * average + (1 - decay) * weights. Running statistics too; counters are copied.
  void Update();

  Model& model() const { return *average_; }

 private:
  std::shared_ptr<Model> average_;
  double decay_;
  std::vector<torch::Tensor> weights_, averages_;
  std::vector<torch::Tensor> counters_, counters_of_average_;
};

}  // namespace fkdb
