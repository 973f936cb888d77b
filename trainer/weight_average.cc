// SPDX-License-Identifier: Apache-2.0
#include "trainer/weight_average.h"

#include <ATen/Functions.h>

#include <utility>

namespace fkdb {

WeightAverage::WeightAverage(const Model& model, std::shared_ptr<Model> average, double decay)
    : average_(std::move(average)), decay_(decay) {
  const torch::NoGradGuard no_grad;
  const auto pair = [&](const std::vector<torch::Tensor>& of_model, const std::vector<torch::Tensor>& of_average) {
    for (size_t i = 0; i < of_model.size(); ++i) {
      of_average[i].copy_(of_model[i]);
      const bool number = of_model[i].is_floating_point();
      (number ? weights_ : counters_).push_back(of_model[i]);
      (number ? averages_ : counters_of_average_).push_back(of_average[i]);
    }
  };
  pair(DistinctParameters(model), DistinctParameters(*average_));
  pair(model.buffers(), average_->buffers());
}

void WeightAverage::Update() {
  const torch::NoGradGuard no_grad;
  at::_foreach_lerp_(averages_, weights_, 1 - decay_);
  if (!counters_.empty()) at::_foreach_copy_(counters_of_average_, counters_);
}

}  // namespace fkdb
