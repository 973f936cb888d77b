// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fkdb {

struct OptimizerConfig {
  std::string name = "sgd";     // "sgd", "adamw"
  double momentum = 0.9;        // sgd
  bool nesterov = false;        // sgd
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  // adamw
  double weight_decay = 1e-4;   // sgd: added to the gradient; adamw: beside it
  std::vector<std::string> no_decay;  // parameters without, by the last part of their names
  bool decay_vectors = true;    // of biases and normalization (1-D parameters) as well
  double clip_norm = 0;         // gradients of a larger norm, over all parameters, are scaled to it; 0: never
};

}  // namespace fkdb
